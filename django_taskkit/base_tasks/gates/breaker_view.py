"""What a process knows of a breaker without asking the store each time."""

from __future__ import annotations

import os
import threading
from typing import Final

from django_taskkit.base_tasks.gates.circuit import SLICES, Limits

STALE: Final = 1.0
"""Seconds that a process takes a closed breaker for closed without looking."""


class View:
    """What this process has last seen of a breaker, and the successes that the others don't know yet."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed_until = float("-inf")
        self._successes = 0
        self._since = 0.0

    def is_closed(self, now: float) -> bool:
        return now < self._closed_until

    def saw_closed(self, now: float, limits: Limits) -> None:
        # Whoever takes it for closed must have looked again before it can be half open.
        self._closed_until = now + min(STALE, limits.open_for / 2)

    def count(self, now: float) -> None:
        with self._lock:
            if not self._successes:
                self._since = now
            self._successes += 1

    def take_if_due(self, now: float, limits: Limits) -> int:
        """Return the successes if the first is a slice of the window old, and begin anew; else 0."""
        return self.take(now, limits) if now - self._since >= limits.window / SLICES else 0

    def take(self, now: float, limits: Limits) -> int:
        """Return the successes, and begin anew; none if they began so long ago that they say nothing of now."""
        with self._lock:
            successes, self._successes = self._successes, 0
            return successes if now - self._since <= 2 * limits.window / SLICES else 0

    def forget(self) -> None:
        with self._lock:
            self._closed_until = float("-inf")
            self._successes = 0


views: dict[str, View] = {}


def view_of(name: str) -> View:
    view = views.get(name)
    return view if view is not None else views.setdefault(name, View())


os.register_at_fork(after_in_child=views.clear)  # a lock may have been taken by a thread that the child doesn't have
