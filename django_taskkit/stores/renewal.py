"""One thread for each process that renews what its runs hold, as long as they go on.

Under gevent and eventlet, which replace ``threading``, the thread is a greenlet.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from django.db import close_old_connections

from django_taskkit.exceptions import StoreError
from django_taskkit.stores import Change, Store, update

logger = logging.getLogger("django_taskkit")

LINGER = 10.0
"""Seconds that the thread waits for something to do before it ends."""

AGAIN = 5.0
"""Seconds, at most, until what the store did not take is tried again."""


class Duty:
    """A change of the store that is made again and again, or until it has been made once.

    Args:
        change: its answer is False if there is nothing to be done any more.
        ttl: seconds for which the change counts.
        every: seconds between two times.
        owner: whose duty it is; gone together with it, even if nobody says so.
        once: whether it ends with the first success.
        until: on the thread's clock, when it is in vain.
        what: what is renewed, for the log.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        key: str,
        change: Change[bool],
        *,
        ttl: float,
        every: float,
        owner: Any = None,
        once: bool = False,
        until: float | None = None,
        what: str = "",
    ) -> None:
        self.store = store
        self.key = key
        self.change = change
        self.ttl = ttl
        self.every = every
        self.owner = None if owner is None else weakref.ref(owner)
        self.once = once
        self.until = until
        self.what = what
        self.due = 0.0
        self.failed = False
        """Whether the store was out of reach the last time."""
        self.is_over = False
        self._lock = threading.Lock()

    def do(self, now: float) -> None:
        """Make the change, if it is still to be made."""
        with self._lock:
            if self.is_over:
                return
            if (self.owner is not None and self.owner() is None) or (self.until is not None and now >= self.until):
                self.is_over = True
                return
            try:
                still = update(self.store(), self.key, self.change, ttl=self.ttl)
            except StoreError:
                self.failed = True
                return
            self.failed = False
            if not still and not self.once:
                logger.warning("%s is no longer its own, and goes on", self.what)
            self.is_over = self.once or not still

    def end(self) -> None:
        """Let it be; when this returns, no change is under way, and none follows."""
        with self._lock:
            self.is_over = True


class Duties:
    """What is to be done in time, by whoever calls :meth:`do_due`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.forget()

    def forget(self) -> None:
        """Begin anew, as in a process that was just forked: what the parent holds is the parent's."""
        self._changed = threading.Condition(threading.Lock())
        self._duties: set[Duty] = set()

    def add(self, duty: Duty) -> None:
        """Do ``duty`` for the first time when its interval has passed."""
        with self._changed:
            duty.due = self.clock() + duty.every
            self._duties.add(duty)

    def remove(self, duty: Duty) -> None:
        """Do it no more; what is under way is over when this returns."""
        with self._changed:
            self._duties.discard(duty)
        duty.end()

    def do_due(self) -> None:
        """Do what is due now."""
        with self._changed:
            now = self.clock()
            due = [duty for duty in self._duties if duty.due <= now]
        for duty in due:
            try:
                duty.do(now)
            except Exception:
                logger.exception("%s could not be renewed", duty.what)
            with self._changed:
                duty.due = now + (min(duty.every, AGAIN) if duty.failed else duty.every)
                if duty.is_over:
                    self._duties.discard(duty)

    def __len__(self) -> int:
        return len(self._duties)


class Renewer(Duties):
    """Does duties in a thread, which is there only while there are some."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, linger: float = LINGER) -> None:
        self._linger = linger
        super().__init__(clock)

    def forget(self) -> None:
        super().forget()
        self.thread: threading.Thread | None = None
        self._wakes_at = 0.0

    def add(self, duty: Duty) -> None:
        super().add(duty)
        with self._changed:
            if self.thread is None:
                self.thread = threading.Thread(target=self._work, name="taskkit-renewal", daemon=True)
                self._wakes_at = duty.due
                self.thread.start()
            elif duty.due < self._wakes_at:
                self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                pause = self._pause()
                if pause > 0:
                    self._wakes_at = self.clock() + pause
                    self._changed.wait(pause)
                    if not self._duties and self.clock() >= self._wakes_at:
                        self.thread = None
                        return
                    continue
            self.do_due()
            try:
                close_old_connections()  # of this thread, which a store in the database has opened
            except Exception:  # the thread goes on, or nothing would be renewed any more
                logger.exception("the connections of the thread that renews can't be closed")

    def _pause(self) -> float:
        if not self._duties:
            return self._linger
        return min(duty.due for duty in self._duties) - self.clock()


renewer = Renewer()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=renewer.forget)
