"""No process is forked in the middle of a write to SQLite by another thread.

SQLite notes its locks in the memory of the process, and a fork copies the notes: the child takes the file for locked by
itself, for as long as it lives, and none of its writes goes through. A prefork worker without an event loop, as on the
filesystem transport, forks in one thread while another one writes down what died.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 30.0
"""Seconds that a fork waits at most for the writes under way, and a write for the fork."""

LOOK_AGAIN = 0.01


class ForkGuard:
    """Lets forks wait for the writes under way, and writes for the fork under way; writes don't wait for each other.

    Without a lock, which a signal handler might find taken by the very code that it interrupted.
    """

    def __init__(self) -> None:
        self._writes: set[object] = set()
        self._forks = False

    @contextmanager
    def writing(self) -> Iterator[None]:
        write = object()
        self._writes.add(write)
        if self._forks:  # looked at only now: one of the two always sees the other
            self._writes.discard(write)
            _wait(lambda: not self._forks)
            self._writes.add(write)
        try:
            yield
        finally:
            self._writes.discard(write)

    def install(self) -> None:
        """Have it mind all forks of this process and of its children."""
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._begin_anew)

    def _before(self) -> None:
        self._forks = True
        _wait(lambda: not self._writes)

    def _after(self) -> None:
        self._forks = False

    def _begin_anew(self) -> None:
        self._forks = False
        self._writes.clear()  # of threads that the child does not have


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(LOOK_AGAIN)


fork_guard = ForkGuard()
fork_guard.install()
