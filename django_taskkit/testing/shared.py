"""What workers share (budgets, breakers, idempotency keys), in memory, for one block of one test."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django_taskkit.base_tasks.gates.breaker_view import views
from django_taskkit.base_tasks.gates.budget_ledger import ledgers
from django_taskkit.stores import Store, opening


class MemoryStore:
    """Keeps facts in a dict, by the fake clock."""

    def __init__(self) -> None:
        self._facts: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

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


class _OnlyOne(dict[str, Store]):
    """Stands in for the stores of this process, by any value of the setting: a test may override it."""

    def __init__(self, store: Store) -> None:
        super().__init__()
        self._store = store

    def get(self, name: str, default: Any = None) -> Any:
        return self._store


@contextmanager
def own_store() -> Iterator[None]:
    """Within the block all that workers share is in memory, and new."""
    module: Any = opening
    before = module._open
    module._open = _OnlyOne(MemoryStore())
    _forget_process()
    try:
        yield
    finally:
        module._open = before
        _forget_process()


def _forget_process() -> None:
    views.clear()
    ledgers.clear()
