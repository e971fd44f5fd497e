"""What workers share (budgets, breakers, idempotency keys, who makes a result), in memory, for one block of a test."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.core.cache.backends.locmem import LocMemCache

from django_taskkit.base_tasks.gates.breaker_view import views
from django_taskkit.base_tasks.gates.budget_ledger import ledgers
from django_taskkit.stores import opening, place
from django_taskkit.stores.cache import set_and_look
from django_taskkit.stores.place import cache_at


class MemoryStore:
    """Keeps facts in a dict, by the fake clock; values are in what stands in for the cache ``alias``."""

    def __init__(self, alias: str = "default", facts: dict[str, tuple[bytes, float]] | None = None) -> None:
        self._alias = alias
        self._facts = {} if facts is None else facts
        self._lock = threading.RLock()

    def read(self, key: str) -> bytes | None:
        value, until = self._facts.get(key, (None, 0.0))
        return value if time.time() < until else None

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float) -> bool:
        with self._lock:
            if self.read(key) != old:
                return False
            if new is None:
                self._facts.pop(key, None)
            else:
                self._facts[key] = (new, time.time() + ttl)
            return True

    def trade(self, key: str, old: bytes, name: str, value: Any, *, timeout: float | None) -> bool:
        with self._lock:
            if self.read(key) != old:
                return False
            set_and_look(cache_at(self._alias), self._alias, name, value, timeout)
            return self.swap(key, old, None, ttl=0)


class _OnlyOne(dict[str, MemoryStore]):
    """Stands in for the stores of this process, by any value of the setting: a test may override it."""

    def __init__(self) -> None:
        super().__init__()
        self._facts: dict[str, tuple[bytes, float]] = {}

    def get(self, name: str, default: Any = None) -> Any:
        return self.setdefault(name, MemoryStore(name, self._facts))


@contextmanager
def own_store() -> Iterator[None]:
    """Within the block all that workers share is in memory, and new."""
    module: Any = opening
    before, place_before = module._open, place.instead
    module._open = _OnlyOne()
    place.instead = _own_caches()
    _forget_process()
    try:
        yield
    finally:
        module._open, place.instead = before, place_before
        _forget_process()


def _own_caches() -> Callable[[str], Any]:
    """Return what gives a cache in memory for each alias, always the same one, empty at first."""
    block = uuid.uuid4().hex
    return cache(lambda alias: LocMemCache(f"taskkit-{block}-{alias}", {"OPTIONS": {"MAX_ENTRIES": 100_000}}))


def _forget_process() -> None:
    views.clear()
    ledgers.clear()
