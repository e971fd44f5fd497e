"""Shared facts in the table of Django's database cache, swapped by one conditional statement."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from random import random
from typing import Any, Final

from django.conf import settings
from django.core.cache import caches
from django.db import Error, IntegrityError, connections, router, transaction

from django_taskkit.exceptions import StoreError
from django_taskkit.stores.cache import fit, set_and_look

TIDY: Final = 0.01
"""How often, of all new rows, one takes those along whose time is up; the cache itself does so only if it is used."""


class CacheTableStore:
    """Keeps facts in the table of the database cache ``alias``.

    Not through the cache: its ``add`` lets two in where a row has expired, and a mutex takes more statements.
    Times are whole seconds: a value may last up to two seconds longer than asked for.
    """

    def __init__(self, alias: str) -> None:
        self._alias = alias

    def read(self, key: str) -> bytes | None:
        with self._as_store_error(key):
            cache, connection, table = self._place()
            with connection.cursor() as cursor:
                cursor.execute(
                    f"SELECT value FROM {table} WHERE cache_key = %s AND expires >= %s",  # noqa: S608
                    [self._name(cache, key), _moment(connection, 0)],
                )
                row = cursor.fetchone()
            return None if row is None else bytes.fromhex(row[0])

    def swap(self, key: str, old: bytes | None, new: bytes | None, *, ttl: float) -> bool:
        with self._as_store_error(key):
            cache, connection, table = self._place()
            name, now = self._name(cache, key), _moment(connection, 0)
            if old is None:
                if new is None:
                    return self.read(key) is None
                if random() < TIDY:  # noqa: S311
                    self._tidy(connection, table)
                try:
                    with transaction.atomic(using=connection.alias), connection.cursor() as cursor:
                        return self._insert(cursor, table, [name, new.hex(), _moment(connection, ttl)], now)
                except IntegrityError:  # somebody else was faster
                    return False
            with connection.cursor() as cursor:
                where = "WHERE cache_key = %s AND value = %s AND expires >= %s"
                if new is None:
                    cursor.execute(f"DELETE FROM {table} {where}", [name, old.hex(), now])  # noqa: S608
                else:
                    cursor.execute(
                        f"UPDATE {table} SET value = %s, expires = %s {where}",  # noqa: S608
                        [new.hex(), _moment(connection, ttl), name, old.hex(), now],
                    )
                return bool(cursor.rowcount == 1)

    def trade(self, key: str, old: bytes, name: str, value: Any, *, timeout: float | None) -> bool:
        with self._as_store_error(key):
            cache, connection, table = self._place()
            with transaction.atomic(using=connection.alias):
                with connection.cursor() as cursor:
                    # The row is locked from here on: who takes the fact away waits, and is told that it is gone.
                    cursor.execute(
                        f"DELETE FROM {table} WHERE cache_key = %s AND value = %s AND expires >= %s",  # noqa: S608
                        [self._name(cache, key), old.hex(), _moment(connection, 0)],
                    )
                    if cursor.rowcount != 1:
                        return False
                set_and_look(cache, self._alias, name, value, timeout)
            return True

    def _insert(self, cursor: Any, table: str, row: list[Any], now: Any) -> bool:
        name, new, expires = row
        cursor.execute(f"SELECT 1 FROM {table} WHERE cache_key = %s", [name])  # noqa: S608
        if cursor.fetchone() is None:
            columns = "(cache_key, value, expires) VALUES (%s, %s, %s)"
            cursor.execute(f"INSERT INTO {table} {columns}", [name, new, expires])
            return True
        # Not a DELETE and an INSERT, over which two would block each other on MariaDB.
        change = f"UPDATE {table} SET value = %s, expires = %s WHERE cache_key = %s AND expires < %s"  # noqa: S608
        cursor.execute(change, [new, expires, name, now])
        return bool(cursor.rowcount == 1)

    def _tidy(self, connection: Any, table: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"DELETE FROM {table} WHERE expires < %s", [_moment(connection, 0)])  # noqa: S608

    def _place(self) -> tuple[Any, Any, str]:
        cache: Any = caches[self._alias]
        connection = connections[router.db_for_write(cache.cache_model_class)]
        return cache, connection, connection.ops.quote_name(cache._table)

    def _name(self, cache: Any, key: str) -> str:
        return str(cache.make_and_validate_key(fit(key)))

    @contextmanager
    def _as_store_error(self, key: str) -> Iterator[None]:
        try:
            yield
        except (Error, ValueError, OverflowError) as exc:
            raise StoreError(
                f"the cache {self._alias!r}, which keeps {key}, is out of reach: {type(exc).__name__}: {exc}"
            ) from exc


def _moment(connection: Any, seconds: float) -> Any:
    """Return the time in so many seconds, as the cache writes it: without fractions, so a second is added."""
    now = datetime.now(timezone.utc if settings.USE_TZ else None)
    then = now + timedelta(seconds=math.ceil(seconds) + 1) if seconds else now
    return connection.ops.adapt_datetimefield_value(then.replace(microsecond=0))
