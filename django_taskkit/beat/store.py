"""Beats meet in the shared store: a Redis or a cache, for projects whose database is not to be asked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, TypeVar

from django_taskkit.beat.place import PlaceError, Run, Sign
from django_taskkit.exceptions import StoreError
from django_taskkit.stores import PREFIX, TRIES, Store
from django_taskkit.stores.opening import shared_store

T = TypeVar("T", Sign, Run)

DAY = 24 * 3600.0
KEPT = 400 * DAY
"""Seconds for which a sign and a run are kept; an entry may run once a year."""


class StorePlace:
    """The place of the beats of one app.

    Args:
        name: of the app.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def read(self) -> Sign | None:
        with _as_place_error():
            return _decoded(Sign, self._store.read(self._key()))

    def replace(self, seen: Sign | None, new: Sign) -> bool:
        with _as_place_error():
            return self._store.swap(self._key(), _encoded(seen), _encoded(new), ttl=KEPT)

    def runs(self, entries: Iterable[str]) -> dict[str, Run]:
        with _as_place_error():
            found = {entry: _decoded(Run, self._store.read(self._key(entry))) for entry in set(entries)}
        return {entry: run for entry, run in found.items() if run is not None}

    def begin(self, entry: str, run: Run) -> bool:
        sign = self.read()
        if sign is None or sign.holder != run.holder or sign.is_released:
            return False
        self._set(entry, run)
        return True

    def end(self, entry: str, run: Run) -> None:
        self._set(entry, Run(**{**asdict(run), "is_sent": True}))

    def _set(self, entry: str, run: Run) -> None:
        key = self._key(entry)
        with _as_place_error():
            for _ in range(TRIES):
                old = self._store.read(key)
                known = _decoded(Run, old)
                if known is not None and known.holder != run.holder and known.began_at > run.began_at and run.is_sent:
                    return  # another beat has sent it since
                if self._store.swap(key, old, _encoded(run), ttl=KEPT):
                    return
        raise PlaceError(f"{key} is changed by others all the time")

    def _key(self, entry: str = "") -> str:
        digest = hashlib.sha256(f"{self.name}\0{entry}".encode("utf-8", "backslashreplace")).hexdigest()[:32]
        return f"{PREFIX}:beat:{'run' if entry else 'lease'}:{digest}"

    @property
    def _store(self) -> Store:
        return shared_store()


def _encoded(value: Sign | Run | None) -> bytes | None:
    return None if value is None else json.dumps(asdict(value), sort_keys=True).encode()


def _decoded(kind: type[T], value: bytes | None) -> T | None:
    if value is None:
        return None
    facts: dict[str, Any] = json.loads(value)
    return kind(**facts)


@contextmanager
def _as_place_error() -> Iterator[None]:
    try:
        yield
    except StoreError as exc:
        raise PlaceError(f"the store that keeps beat's lease: {exc}") from exc
