"""What SIGTERM and SIGINT do to a command that runs until it is told to stop."""

from __future__ import annotations

import signal
import threading
from _thread import start_new_thread
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT set ``stop``; a second one ends the process, as it would without this."""
    before: dict[signal.Signals, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def on_signal(*_: object) -> None:
        # In a thread of its own: the handler may have interrupted `stop.wait()` while that holds the event's lock, for
        # which `set()` would then wait for ever, in the only thread that could give it back.
        start_new_thread(stop.set, ())
        restore()

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(ValueError):  # only the main thread gets signals
            before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        restore()
