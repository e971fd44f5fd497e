"""A store that is out of reach isn't asked for a while, so that its outage slows down no task."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from django_taskkit.exceptions import StoreError, ValueNotKeptError
from django_taskkit.stores import Store, ValueStore

T = TypeVar("T")

logger = logging.getLogger("django_taskkit")

SHORTEST: Final = 2.0
"""Seconds of the first pause; each further one in a row is twice as long."""
LONGEST: Final = 30.0
"""Seconds; the longest until a store that is back is noticed."""

EVERY: Final = 60.0
"""Seconds between two warnings of the same matter."""


class PausingStore:
    """Another store; after a failure, says for some seconds at once that it is out of reach.

    When the time is up one call finds out whether it is back, while the others are still turned away.
    """

    def __init__(self, store: Store | ValueStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.store = store
        self._clock = clock
        self._failures = 0
        self._until = float("-inf")
        self._why = ""

    def read(self, key: str) -> bytes | None:
        return self._ask(lambda: self.store.read(key))

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float) -> bool:
        return self._ask(lambda: self.store.swap(key, old, new, ttl=ttl))

    def trade(self, key: str, old: bytes, name: str, value: Any, *, timeout: float | None) -> bool:
        return self._ask(lambda: cast("ValueStore", self.store).trade(key, old, name, value, timeout=timeout))

    def _ask(self, call: Callable[[], T]) -> T:
        if self._clock() < self._until:
            raise StoreError(f"{self._why} (it is asked again after a pause)")
        if self._failures:
            self._pause()
        until = self._until
        try:
            answer = call()
        except StoreError as exc:
            if until == self._until:  # nobody has noted a failure meanwhile
                self._failures += 1
                self._why = str(exc)
                self._pause()
            raise
        except ValueNotKeptError:  # it has answered
            self._works()
            raise
        self._works()
        return answer

    def _works(self) -> None:
        self._failures = 0
        self._until = float("-inf")

    def _pause(self) -> None:
        self._until = self._clock() + min(LONGEST, SHORTEST * 2 ** min(10, max(0, self._failures - 1)))


class Warnings:
    """Logs each matter at most once a minute in each process, however many tasks meet it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._said: dict[str, float] = {}

    def say(self, what: str, message: str, *args: object) -> None:
        now = self._clock()
        if now - self._said.get(what, float("-inf")) >= EVERY:
            self._said[what] = now
            logger.warning(message, *args)

    def forget(self) -> None:
        self._said.clear()


warnings = Warnings()


def stands_open(what: str, exc: StoreError) -> None:
    """Say, once a minute at most, that ``what`` lets everything through because its store is out of reach."""
    warnings.say(what, "%s lets every task through: %s", what, exc)
