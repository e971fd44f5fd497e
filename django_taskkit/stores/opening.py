"""The store that the setting ``SHARED_STORE`` names, and those in other caches."""

from __future__ import annotations

import os
from typing import Any, Final
from urllib.parse import urlsplit

from django.conf import settings
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache.backends.db import DatabaseCache
from django.core.cache.backends.dummy import DummyCache
from django.core.cache.backends.filebased import FileBasedCache
from django.core.signals import setting_changed

from django_taskkit.conf import current
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.stores import Store, ValueStore
from django_taskkit.stores.cache import CacheStore
from django_taskkit.stores.cache_table import CacheTableStore
from django_taskkit.stores.pausing import PausingStore

SCHEMES: Final = ("redis://", "rediss://", "unix://")


SETTING: Final = "TASKKIT['SHARED_STORE']"


class NoStoreError(StoreError, ConfigurationError):
    """A name stands for nothing that workers could share; the message says what to name instead."""


_open: dict[str, PausingStore] = {}
"""By what names it; emptied after a fork, which must not share connections."""


def shared_store() -> Store:
    """Return the store that ``TASKKIT["SHARED_STORE"]`` names: one for each process, for all threads.

    After a failure it says for some seconds that it is out of reach, without asking again.

    Raises:
        NoStoreError: the setting names nothing that can be used; this is a StoreError as well.
    """
    name = current().shared_store
    store = _open.get(name)
    if store is None:
        store = _open[name] = PausingStore(_at_url(name) if "://" in name else _in_cache(name, SETTING))
    return store


def store_in_cache(alias: str, what: str) -> ValueStore:
    """Return the store in a cache, from where values can be traded: one for each process, for all threads.

    Args:
        what: the option that names the cache, for the error.

    Raises:
        NoStoreError: it can't be used; this is a StoreError as well.
    """
    store = _open.get(alias)
    if store is None:
        store = _open[alias] = PausingStore(_in_cache(alias, what))
    return store


def _in_cache(name: str, what: str) -> ValueStore:
    if name not in settings.CACHES:
        known = ", ".join(map(repr, settings.CACHES))
        # What was meant to be a URL may hold a password.
        shown = f"{name.partition(':')[0]}:…" if ":" in name else repr(name)
        or_url = ", or a URL like redis://host/0" if what == SETTING else ""
        raise NoStoreError(f"{what} is {shown}; give the alias of a cache ({known}){or_url}")
    try:
        cache = caches[name]
        client, encode = _redis_client(cache)
    except (ImportError, InvalidCacheBackendError) as exc:
        raise NoStoreError(f"{what} is {name!r}, a cache that can't be opened: {exc}") from exc
    if isinstance(cache, (DummyCache, FileBasedCache)):
        why = "keeps nothing" if isinstance(cache, DummyCache) else "can't tell who wrote first"
        or_url = ", or a URL like redis://host/0" if what == SETTING else ""
        raise NoStoreError(
            f"{what} is {name!r}, a {type(cache).__name__}, which {why}; "
            f"give a cache on Redis, memcached or the database{or_url}"
        )
    if client is None:
        return CacheTableStore(name) if isinstance(cache, DatabaseCache) else CacheStore(name)
    from django_taskkit.stores.redis import RedisStore

    def key(key: str) -> str:
        return str(cache.make_key(key))

    return RedisStore.of_cache(client, key, encode)


def _at_url(url: str) -> Store:
    shown = f"{url.partition('://')[0]}://…"  # the rest may hold a password
    if not url.startswith(SCHEMES):
        raise NoStoreError(f"TASKKIT['SHARED_STORE'] is {shown}; a URL has to begin with {', '.join(SCHEMES)}")
    try:
        from django_taskkit.stores.redis import RedisStore

        return RedisStore.at(url)
    except ImportError:
        raise NoStoreError(
            f"TASKKIT['SHARED_STORE'] is {shown}, but redis-py is not installed: pip install 'django-taskkit[redis]'"
        ) from None
    except ValueError as exc:
        raise NoStoreError(f"TASKKIT['SHARED_STORE'] is {shown}, which can't be used: {_why(url, exc)}") from None


def _why(url: str, exc: ValueError) -> str:
    """Return what is wrong with a URL; what stands where its port should be may be a part of a password."""
    try:
        _ = urlsplit(url).port
    except ValueError:
        return "its host or port makes no sense; a password's special characters have to be escaped (/ is %2F, # %23)"
    return str(exc)


def _redis_client(cache: Any) -> tuple[Any, Any]:
    """Return the client for writing of a cache on Redis, and what makes bytes of a value there; of others, None.

    Django's own, and django-redis.
    """
    origins = {f"{base.__module__}.{base.__name__}" for base in type(cache).__mro__}
    if "django.core.cache.backends.redis.RedisCache" in origins:
        return cache._cache.get_client(None, write=True), cache._cache._serializer.dumps
    if "django_redis.cache.RedisCache" in origins:
        client = cache.client
        # A sharded or clustered client spreads keys over servers, and speaks for none of them.
        if type(client).__name__ == "DefaultClient":
            return client.get_client(write=True), client.encode
    return None, None


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("TASKKIT", "CACHES"):
        _open.clear()


setting_changed.connect(_forget, dispatch_uid="django_taskkit.stores.opening")
os.register_at_fork(after_in_child=_open.clear)
