"""Which runs should have been while no beat was at work? Celery sends one of them, and says nothing of the others."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from itertools import islice
from typing import Any

from celery.utils.time import maybe_make_aware

from django_taskkit import signals
from django_taskkit.beat.due import due_times, every

logger = logging.getLogger("django_taskkit")

COUNTED = 1_000
"""At most so many times are counted; of a plain interval, all."""

LATE = timedelta(seconds=60)
"""A single run that is late by less is no matter: beat was started anew."""


def report(entries: Iterable[Any], since: float) -> None:
    """Log, and send ``beat_runs_missed``, for each entry that should have run since beat was last at work.

    Args:
        entries: of the schedule, with their true last runs.
        since: when that was, in seconds since 1970.
    """
    for entry in entries:
        try:
            _report(entry, datetime.fromtimestamp(since, tz=timezone.utc))
        except Exception:
            logger.debug("the missed runs of %s can't be counted", getattr(entry, "name", entry), exc_info=True)


def _report(entry: Any, since: datetime) -> None:
    model = getattr(entry, "model", None)
    if model is not None and (not model.enabled or _is_over(model)):
        return
    now = maybe_make_aware(entry.default_now())
    known = maybe_make_aware(entry.last_run_at) if entry.last_run_at is not None else since
    since = max(known, since)
    times = list(islice(due_times(entry.schedule, known, since, now), COUNTED))
    if not times:
        return
    first, count, length = times[0], len(times), every(entry.schedule)
    if length:
        count = int((now - known) / length) - int((since - known) / length)
    if getattr(model, "one_off", False):
        count = 1
    is_sent_now = bool(entry.is_due()[0])
    skipped = count - is_sent_now
    if skipped <= 0 and now - first < LATE:
        return
    logger.warning(
        "%s (%s) should have run %s since %s, while no beat was at work; %s",
        entry.name,
        entry.task,
        f"{count}{' or more' if count == COUNTED else ''} time{'' if count == 1 else 's'}",
        first.isoformat(timespec="seconds"),
        "it runs once now" if is_sent_now else "it does not run now",
    )
    event = signals.BeatRunsMissed(
        entry=entry.name, task_name=entry.task, count=count, skipped=skipped, first=first, since=since
    )
    signals.beat_runs_missed.send_robust(sender=type(event), event=event)


def _is_over(model: Any) -> bool:
    """Of an entry of django-celery-beat: its time is over, or it ran the one time that it should."""
    expires = getattr(model, "expires", None)
    if expires is not None and expires.timestamp() <= datetime.now(timezone.utc).timestamp():
        return True
    return bool(getattr(model, "one_off", False) and model.total_run_count)
