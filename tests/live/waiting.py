"""Wait for what a process does meanwhile, and skip or fail where a service cannot be had."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

T = TypeVar("T")


def unavailable(reason: str) -> NoReturn:
    """A missing service skips the test on a laptop and fails it in CI."""
    import pytest

    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def wait_until(
    condition: Callable[[], T],
    timeout: float = 60,
    message: str | None = None,
    interval: float = 0.05,
) -> T:
    """The first true value of `condition`; fails with the last value seen when `timeout` seconds have passed."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            name = getattr(condition, "__name__", repr(condition))
            raise AssertionError(f"{message or name}: not within {timeout} s; last value: {value!r}")
        time.sleep(interval)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]
