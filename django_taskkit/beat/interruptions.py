"""Let a signal that ends beat wait until the message that is being sent is noted as sent."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def put_off() -> Iterator[None]:
    """Within the block the first SIGTERM or SIGINT waits for its end; a second one does what it always does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    came: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: object) -> None:
        came.append(number)
        restore()

    for number in _SIGNALS:
        handler = signal.getsignal(number)
        if callable(handler):  # else the process ends at once, or not at all, as whoever set it wants
            before[number] = signal.signal(number, note)
    try:
        yield
    finally:
        restore()
        for caught in came:
            os.kill(os.getpid(), caught)
