"""Shared facts in Redis: one round trip to read, one to swap, one to trade."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from django_taskkit.exceptions import StoreError, ValueNotKeptError

TIMEOUT: Final = 1.0
"""Seconds that a connection, and an answer, are waited for."""

SWAP: Final = """
local value = redis.call('GET', KEYS[1])
if ARGV[1] == '' then
  if value then return 0 end
elseif value ~= string.sub(ARGV[1], 2) then
  return 0
end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], string.sub(ARGV[2], 2), 'PX', ARGV[3])
end
return 1
"""
"""No value is an empty argument, so a value has a letter before it."""

TRADE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
redis.call('DEL', KEYS[1])
return 1
"""

_OF_A_POOL: Final = ("maint_", "maintenance_", "orig_", "oss_", "retry", "event_dispatcher", "himport", "decode_")


class RedisStore:
    """Keeps facts in the Redis of ``client``, a ``redis.Redis`` that returns bytes.

    Args:
        key: what a key is called there.
        encode: makes bytes of a value, as the cache does that it is traded for.
        slow_client: for values, which may take longer than facts; None: the same.
    """

    def __init__(
        self,
        client: Any,
        key: Callable[[str], str] = str,
        encode: Callable[[Any], Any] | None = None,
        slow_client: Any = None,
    ) -> None:
        self._client = client
        self._key = key
        self._encode = encode
        self._swap = client.register_script(SWAP)
        self._trade = (slow_client or client).register_script(TRADE)

    @classmethod
    def at(cls, url: str) -> RedisStore:
        """Return the store at a ``redis://``, ``rediss://`` or ``unix://`` URL.

        Raises:
            ValueError: it is no such URL, or has options that a connection doesn't.
        """
        import redis

        pool = redis.ConnectionPool.from_url(url)
        try:
            pool.connection_class(**pool.connection_kwargs)  # connects to nothing yet
        except (TypeError, redis.RedisError) as exc:
            raise ValueError(str(exc)) from exc
        return cls(_client(pool))

    @classmethod
    def of_cache(cls, client: Any, key: Callable[[str], str], encode: Callable[[Any], Any] | None = None) -> RedisStore:
        """Return a store in the Redis that a cache talks to through ``client``, with values as ``encode`` makes them.

        Over connections of its own: those of a cache may wait for an answer for ever, and there may be a set of them
        for each thread. Only where the cache finds its server in a way of its own (Sentinel) they are shared.
        """
        import redis

        pool = getattr(client, "connection_pool", None)
        plain = type(pool) in (redis.ConnectionPool, redis.BlockingConnectionPool)
        return cls(_client(pool) if plain else client, key, encode, client)

    def read(self, key: str) -> bytes | None:
        with _as_store_error(key):
            return _bytes(self._client.get(self._key(key)))

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float) -> bool:
        with _as_store_error(key):
            milliseconds = max(1, math.ceil(ttl * 1000))
            return bool(self._swap(keys=[self._key(key)], args=[_argument(old), _argument(new), milliseconds]))

    def trade(self, key: str, old: bytes, name: str, value: Any, *, timeout: float | None) -> bool:
        import redis

        if self._encode is None:
            raise TypeError("only a store in a cache has values to trade for")
        try:
            encoded = self._encode(value)
        except Exception as exc:  # pickle lets through whatever an object's own code raises
            raise ValueNotKeptError(f"the value can't be pickled: {type(exc).__name__}: {exc}") from exc
        with _as_store_error(key):
            milliseconds = "" if timeout is None else max(1, math.ceil(timeout * 1000))
            names = [self._key(key), self._key(name)]
            try:
                return bool(self._trade(keys=names, args=[old, encoded, milliseconds]))
            except redis.ResponseError as exc:  # it has answered: it has no memory for it, or the value is too large
                raise ValueNotKeptError(f"Redis doesn't take the value: {exc}") from exc


def _client(pool: Any) -> Any:
    """Return a client for the server of ``pool`` that gives up after `TIMEOUT` and doesn't try again by itself.

    A swap that is tried again after its answer was lost would fail by its own success.
    """
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(_OF_A_POOL)}
    for name in ("socket_timeout", "socket_connect_timeout"):
        options[name] = min(options.get(name) or TIMEOUT, TIMEOUT)
    options["retry"] = Retry(NoBackoff(), 0)
    return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=pool.connection_class, **options))


def _argument(value: bytes | None) -> bytes:
    return b"" if value is None else b"=" + value


def _bytes(value: Any) -> bytes | None:
    """Return what a shared client has read as the bytes that it was."""
    return value.encode() if isinstance(value, str) else value


@contextmanager
def _as_store_error(key: str) -> Iterator[None]:
    import redis

    try:
        yield
    except (redis.RedisError, OSError, UnicodeError) as exc:
        raise StoreError(f"the Redis that keeps {key} is out of reach: {type(exc).__name__}: {exc}") from exc
