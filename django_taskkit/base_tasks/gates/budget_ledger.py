"""What a process counts for a retry budget without telling the store each time."""

from __future__ import annotations

import os
import threading
from typing import Final

STALE: Final = 1.0
"""Seconds that a process takes a full bucket for full without looking, and that successes are counted together."""

SPENT_STALE: Final = 0.2
"""The same while the bucket is not full."""


class Ledger:
    """The successes of this process that the store doesn't know yet.

    A full bucket gains nothing by a success, so while it was full at the last look they are only counted, for the next
    failure: those that are at most two looks old.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._successes = 0
        self._look_at = float("-inf")

    def count(self, now: float, *, at_once: bool = False) -> bool:
        """Count a success; say whether it is time to tell the store."""
        with self._lock:
            self._drop_old(now)
            self._successes += 1
            if now < self._look_at and not at_once:
                return False
            self._look_at = now + STALE  # others needn't look meanwhile
            return True

    def take(self, now: float) -> int:
        """Return the successes since the last time, and begin anew."""
        with self._lock:
            self._drop_old(now)
            successes, self._successes = self._successes, 0
            return successes

    def _drop_old(self, now: float) -> None:
        # A process that ran nothing for a while must not pay for a failure of now with successes of yesterday.
        if now >= self._look_at + STALE:
            self._successes = 0

    def seen(self, full: bool, now: float) -> None:
        """Take note of what the bucket was like."""
        with self._lock:
            self._look_at = now + (STALE if full else SPENT_STALE)

    def forget(self) -> None:
        with self._lock:
            self._successes = 0
            self._look_at = float("-inf")


ledgers: dict[str, Ledger] = {}


def ledger_of(name: str) -> Ledger:
    ledger = ledgers.get(name)
    return ledger if ledger is not None else ledgers.setdefault(name, Ledger())


os.register_at_fork(after_in_child=ledgers.clear)  # a lock may have been taken by a thread that the child doesn't have
