"""When is an entry due? Asked of any kind of schedule, for any time; Celery's schedules know only of now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from celery.schedules import schedule as interval
from celery.utils.time import maybe_make_aware


def every(schedule: Any) -> timedelta | None:
    """Return the length of a plain interval that may be counted without walking through it."""
    if type(schedule) is not interval or schedule.relative:
        return None
    length: timedelta = vars(schedule)["run_every"]
    return length


def due_times(schedule: Any, known: datetime, since: datetime, now: datetime) -> Iterator[datetime]:
    """Yield the times after ``since``, and until ``now``, at which it was due; of a plain interval only the first.

    Args:
        known: when it ran last.
    """
    length = every(schedule)
    if length:
        first = known + length * (int((since - known) / length) + 1)
        if first <= now:
            yield first
        return
    moment = since
    while True:
        following = maybe_make_aware(schedule.now()) + schedule.remaining_estimate(moment)
        if following.microsecond >= 500_000:  # two readings of the clock make the time, of which each is a bit later
            following += timedelta(seconds=1)
        following = following.replace(microsecond=0)
        if following <= moment or following > now:
            return
        yield following
        moment = following
