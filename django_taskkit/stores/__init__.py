"""Small facts that all workers share: budgets, breakers, idempotency keys, who makes a result.

A store reads a fact and swaps it for another if nobody else did so meanwhile. All logic stays in Python, once, for
every kind of store; :func:`update` is what everybody uses. Those in a cache also trade a fact for a value of the cache,
so that only who still has the fact can set the value.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from random import uniform
from typing import Any, Protocol, TypeVar

from django_taskkit.exceptions import StoreError

T = TypeVar("T")
Change = Callable[[bytes | None], tuple[bytes | None, T]]
"""What :func:`update` takes: from the value to the new one and an answer."""

PREFIX = "taskkit"
"""What the names of all keys begin with."""

TRIES = 50
"""How often a value that others keep changing is read again before giving up."""


class Store(Protocol):
    """Where shared facts are kept. Its methods raise :class:`StoreError`, and nothing else, if it is out of reach."""

    def read(self, key: str) -> bytes | None:
        """Return the value of ``key``, None if it has none or its time is up."""
        ...

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float) -> bool:
        """Replace ``old`` by ``new`` (None: no value) for ``ttl`` seconds; False if it isn't ``old`` any more."""
        ...


class ValueStore(Store, Protocol):
    """A store in a cache that has values as well."""

    def trade(self, key: str, old: bytes, name: str, value: Any, *, timeout: float | None) -> bool:
        """Give ``key`` away for ``value`` as ``name`` of the cache; False if it isn't ``old`` any more.

        Args:
            timeout: seconds for which the cache keeps the value; None: for ever.

        Raises:
            ValueNotKeptError: the cache doesn't keep such a value; ``key`` is as it was.
        """
        ...


def update(store: Store, key: str, change: Change[T], *, ttl: float) -> T:
    """Change the value of ``key`` as if nobody else were there, and return what ``change`` says beside it.

    Args:
        change: takes the value, returns the new one and an answer; may be called more than once.
        ttl: seconds after which the value is forgotten, counted from the last change.

    Raises:
        StoreError: the store is out of reach, or too many others change this very value.
    """
    for attempt in range(TRIES):
        old = store.read(key)
        new, answer = change(old)
        if new == old or store.swap(key, old, new, ttl=ttl):
            return answer
        time.sleep(uniform(0, 0.001 * (attempt + 1)))  # noqa: S311 (nothing secret)
    raise StoreError(f"{key} is changed by others all the time; it was tried {TRIES} times")
