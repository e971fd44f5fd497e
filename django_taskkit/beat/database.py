"""Beats meet in the database: each step is one conditional UPDATE, on every database that Django knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from typing import Any

from django.db import IntegrityError, connections, router, transaction
from django.db.models import Exists, QuerySet

from django_taskkit.beat.model import BeatLease, BeatRun
from django_taskkit.beat.place import PlaceError, Run, Sign
from django_taskkit.dlq.durable import durable, forget_connection
from django_taskkit.dlq.text import bounded, storable

QUERY_TIMEOUT = 5.0
"""Seconds to wait for the database; well below the length of a lease."""


class DatabasePlace:
    """The place of the beats of one app.

    Args:
        name: of the app.
    """

    def __init__(self, name: str) -> None:
        self.name = bounded(name)

    def read(self) -> Sign | None:
        with self._connected() as using:
            row = BeatLease.objects.using(using).filter(name=self.name).first()
        return None if row is None else Sign(**{field.name: getattr(row, field.name) for field in fields(Sign)})

    def replace(self, seen: Sign | None, new: Sign) -> bool:
        values = asdict(new)
        with self._connected() as using:
            rows = BeatLease.objects.using(using)
            if seen is not None:
                return bool(rows.filter(name=self.name, version=seen.version).update(**values))
            return _created(rows, name=self.name, **values)

    def runs(self, entries: Iterable[str]) -> dict[str, Run]:
        wanted = set(entries)
        with self._connected() as using:
            rows = list(BeatRun.objects.using(using).filter(name=self.name))
        return {row.entry: _run(row) for row in rows if row.entry in wanted}

    def begin(self, entry: str, run: Run) -> bool:
        values = asdict(run)
        with self._connected() as using:
            ours = BeatLease.objects.using(using).filter(name=self.name, holder=run.holder, is_released=False)
            rows = BeatRun.objects.using(using)
            key = self._key(entry)
            if rows.filter(Exists(ours), key=key).update(**values):
                return True
            return ours.exists() and _created(rows, key=key, name=self.name, entry=storable(entry), **values)

    def end(self, entry: str, run: Run) -> None:
        with self._connected() as using:
            same = {"key": self._key(entry), "holder": run.holder, "began_at": run.began_at}
            BeatRun.objects.using(using).filter(**same).update(is_sent=True)

    def _key(self, entry: str) -> str:
        return hashlib.sha256(f"{self.name}\0{storable(entry)}".encode()).hexdigest()

    @contextmanager
    def _connected(self) -> Iterator[str]:
        using = router.db_for_write(BeatLease)
        try:
            connection = connections[using]
            if connection.connection is None:
                with durable(using, QUERY_TIMEOUT):  # a connection that waits for no silent database
                    pass
                connection.ensure_connection()  # and one to keep, for beat writes again and again
            with durable(using, QUERY_TIMEOUT):
                yield using
        except Exception as exc:
            forget_connection(using)
            raise PlaceError(f"the database that keeps beat's lease: {type(exc).__name__}: {exc}") from exc


def _run(row: BeatRun) -> Run:
    return Run(holder=row.holder, began_at=row.began_at, before=row.before, is_sent=row.is_sent)


def _created(rows: QuerySet[Any], **values: Any) -> bool:
    try:
        with transaction.atomic(using=rows.db):
            rows.create(**values)
    except IntegrityError:
        return False  # another was first
    return True
