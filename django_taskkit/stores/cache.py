"""Shared facts in any of Django's caches, swapped under a short mutex."""

from __future__ import annotations

import hashlib
import math
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from random import uniform
from typing import Any, Final

from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import caches

from django_taskkit.exceptions import StoreError, ValueNotKeptError

PATIENCE: Final = 3.0
"""Seconds that a swap waits for others who swap the same key."""
LEASE: Final = 10.0
"""Seconds after which the mutex of a process that died is free again."""

_UNFIT: Final = re.compile(r"[^\x21-\x7e]")


class CacheStore:
    """Keeps facts in the cache ``alias``.

    ``cache.add`` makes the mutex, so it has to be atomic there: it is in memory, memcached and Redis.
    Caches count in whole seconds: a value may last up to two seconds longer than asked for, and is gone earlier where a
    cache throws away what it has no room for.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias

    @property
    def _cache(self) -> Any:
        return caches[self._alias]  # one for each thread, so it isn't kept

    def read(self, key: str) -> bytes | None:
        with self._as_store_error(key):
            return self._value(self._cache, fit(key))

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float) -> bool:
        with self._as_store_error(key):
            cache, name = self._cache, fit(key)
            if old is None and new is not None:
                return bool(cache.add(name, new, math.ceil(ttl) + 1))  # one step; of many at once one gets it
            with self._mutex(cache, f"{name}.mutex") as held:
                if self._value(cache, name) != old:
                    return False
                if not held():
                    raise StoreError(f"the cache {self._alias!r} took seconds to answer")
                if new is None:
                    cache.delete(name)
                else:
                    cache.set(name, new, math.ceil(ttl) + 1)
                # Some caches fail without a word. Where nothing was left, another may have written a new value at once.
                found = self._value(cache, name)
                if found == old if new is None else found != new:
                    raise StoreError(f"the cache {self._alias!r} did not keep the value of {key}")
                return True

    def trade(self, key: str, old: bytes, name: str, value: Any, *, timeout: float | None) -> bool:
        with self._as_store_error(key):
            cache, fact = self._cache, fit(key)
            with self._mutex(cache, f"{fact}.mutex") as held:
                if self._value(cache, fact) != old:
                    return False
                if not held():
                    raise StoreError(f"the cache {self._alias!r} took seconds to answer")
                set_and_look(cache, self._alias, name, value, timeout)
                cache.delete(fact)
                return True

    def _value(self, cache: Any, name: str) -> bytes | None:
        value = cache.get(name)
        if value is None or isinstance(value, bytes):
            return value
        raise StoreError(f"{name} in the cache {self._alias!r} is {value!r}, which is none of ours")

    @contextmanager
    def _mutex(self, cache: Any, name: str) -> Iterator[Any]:
        token = uuid.uuid4().hex
        deadline = time.monotonic() + PATIENCE
        while not cache.add(name, token, math.ceil(LEASE) + 1):
            if time.monotonic() > deadline:
                raise StoreError(f"{name} in the cache {self._alias!r} is not free")
            time.sleep(uniform(0.0005, 0.005))  # noqa: S311 (nothing secret)
        taken = time.monotonic()

        def held() -> bool:
            return time.monotonic() - taken < LEASE / 2

        try:
            yield held
        finally:
            if held():
                cache.delete(name)

    @contextmanager
    def _as_store_error(self, key: str) -> Iterator[None]:
        try:
            yield
        except (StoreError, ValueNotKeptError, SoftTimeLimitExceeded):
            raise
        except Exception as exc:  # each cache has errors of its own
            raise StoreError(
                f"the cache {self._alias!r}, which keeps {key}, is out of reach: {type(exc).__name__}: {exc}"
            ) from exc


def set_and_look(cache: Any, alias: str, name: str, value: Any, timeout: float | None) -> None:
    """Set ``name`` of a cache; caches fail without a word, so look whether it is there.

    Raises:
        ValueNotKeptError: it isn't, or the cache, which is there, doesn't take it.
    """
    try:
        cache.set(name, value, None if timeout is None else math.ceil(timeout) + 1)
    except SoftTimeLimitExceeded:
        raise
    except Exception as exc:
        cache.delete(name)  # raises as well if the cache is out of reach
        raise ValueNotKeptError(f"the cache {alias!r} doesn't take the value: {type(exc).__name__}: {exc}") from exc
    if not cache.has_key(name):
        raise ValueNotKeptError(f"the cache {alias!r} doesn't keep the value; it may be too large for it")


def fit(key: str) -> str:
    """Return a key that every cache takes: memcached wants no blanks, and 250 bytes with prefix and all."""
    if len(key) <= 150 and not _UNFIT.search(key):
        return key
    return f"{_UNFIT.sub('-', key)[:80]}:{hashlib.sha256(key.encode()).hexdigest()}"
