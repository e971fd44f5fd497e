"""How beat is, for whoever asks from another process."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from celery.app import app_or_default

from django_taskkit import conf
from django_taskkit.beat.lease import LEASE
from django_taskkit.beat.making import name_of, place_for


@dataclass(frozen=True, kw_only=True)
class BeatState:
    """The beat that sends, or that sent last. Times have a zone (UTC), and are by the clock of its machine."""

    lock: str
    """``"database"`` or ``"store"``: where it says so."""
    app: str
    host: str
    pid: int
    scheduler: str
    started_at: datetime
    seen_at: datetime
    """It says so every ten seconds."""
    next_due_at: datetime | None
    is_stopped: bool
    """Whether it stopped in good order, and no other has taken over."""
    age: float
    """Seconds since ``seen_at``, by the clock of whoever asks."""

    @property
    def is_alive(self) -> bool:
        """Whether it was seen lately; clocks of two machines must agree to within half a minute for that."""
        return not self.is_stopped and self.age < 2 * LEASE


def state(app: Any = None) -> BeatState | None:
    """Return how beat is; None if none was ever seen, or if ``BEAT_LOCK`` is ``"off"``.

    Args:
        app: the Celery app whose beat is meant; None: the current one.

    Raises:
        PlaceError: the database or the store can't be read.
        ConfigurationError: ``TASKKIT`` makes no sense.
    """
    app = app_or_default(app)
    place = place_for(app)
    sign = None if place is None else place.read()
    if sign is None:
        return None
    return BeatState(
        lock=conf.current().beat_lock,
        app=name_of(app),
        host=sign.host,
        pid=sign.pid,
        scheduler=sign.scheduler,
        started_at=_moment(sign.started_at),
        seen_at=_moment(sign.seen_at),
        next_due_at=None if sign.next_due_at is None else _moment(sign.next_due_at),
        is_stopped=sign.is_released,
        age=max(0.0, time.time() - sign.seen_at),
    )


def _moment(since_1970: float) -> datetime:
    return datetime.fromtimestamp(since_1970, tz=timezone.utc)
