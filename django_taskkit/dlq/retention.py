"""Delete what is over and done with after a time, and warn when too much waits; never delete what waits.

The age of a row counts from its last event, that is since it recovered or was discarded, not since it died.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import connections, router, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status
from django_taskkit.dlq.pause import Gaps
from django_taskkit.dlq.selection import OPEN, Selection

logger = logging.getLogger("django_taskkit")

BATCH = 500
"""Rows that one transaction deletes, with their events."""

CLOSED = (Status.RECOVERED, Status.DISCARDED)
"""What a purge deletes without being told to."""


@dataclass(frozen=True)
class Warned:
    """That too much waits, and what to do about it."""

    text: str
    hint: str


def retention() -> timedelta | None:
    """Return how long closed rows are kept; None for ever."""
    days = conf.current().retention_days
    return None if days is None else timedelta(days=days)


def purgeable(before: datetime, statuses: Sequence[str] = CLOSED) -> QuerySet[DeadLetter]:
    """Return the rows in ``statuses`` to which nothing has happened since ``before``.

    Args:
        before: a time, with a time zone if ``USE_TZ`` is on.
        statuses: *recovered*, *discarded*; *dead* only where somebody has said so.

    Raises:
        ValueError: of rows that are *held* or *requeued*, a workflow or a message is still to come.
    """
    _refuse_what_is_to_come(statuses)
    since = DeadLetterEvent.objects.filter(dead_letter=OuterRef("pk"), at__gte=before)
    return _died(before, statuses).filter(~Exists(since))


def _refuse_what_is_to_come(statuses: Sequence[str]) -> None:
    if wrong := set(statuses) - {*CLOSED, Status.DEAD}:
        raise ValueError(f"rows that are {', '.join(sorted(wrong))} can't be purged; discard them first")


def _died(before: datetime, statuses: Sequence[str]) -> QuerySet[DeadLetter]:
    """Return what may be purgeable: nothing happens to a row before it dies, and of that time there is an index."""
    return DeadLetter.objects.using(router.db_for_write(DeadLetter)).filter(status__in=statuses, died_at__lt=before)


def purge(
    before: datetime,
    statuses: Sequence[str] = CLOSED,
    *,
    progress: Callable[[int], object] | None = None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Delete what :func:`purgeable` returns, the oldest first, and say how many rows that was.

    In transactions of ``BATCH`` rows: no lock is held for long, and what is done stays done if it is interrupted.

    Args:
        progress: is called with the number of rows after each transaction.
        seconds: ends after about that long; the rest is for the next time.
    """
    _refuse_what_is_to_come(statuses)
    using = router.db_for_write(DeadLetter)
    gaps = Gaps(connections[using].vendor)
    deleted, end = 0, None if seconds is None else clock() + seconds
    for status in statuses:
        for keys in _oldest_first(_died(before, [status])):
            gaps.leave()
            count = _delete(keys, status, before, using)
            deleted += count
            if progress is not None:
                progress(count)
            if end is not None and clock() >= end:
                return deleted
    return deleted


def _oldest_first(rows: QuerySet[DeadLetter]) -> Iterator[list[int]]:
    # Backwards through the index on status and time, so that no page sorts all that is left.
    found = list(rows.order_by("died_at", "-pk").values_list("died_at", "pk")[:BATCH])
    while found:
        yield [pk for _died_at, pk in found]
        died_at, last = found[-1]
        rest = rows.filter(died_at__gte=died_at).filter(Q(died_at__gt=died_at) | Q(died_at=died_at, pk__lt=last))
        found = list(rest.order_by("died_at", "-pk").values_list("died_at", "pk")[:BATCH])


def _delete(keys: list[int], status: str, before: datetime, using: str) -> int:
    # By itself, since in one statement MariaDB would look through all events for each page.
    events = DeadLetterEvent.objects.using(using).filter(dead_letter__in=keys)
    keys = sorted(set(keys) - set(events.filter(at__gte=before).values_list("dead_letter", flat=True)))
    if not keys:
        return 0
    with transaction.atomic(using=using):
        # A row that has changed since it was found stays: its message may have died once more.
        rows = DeadLetter.objects.using(using).filter(pk__in=keys, status=status)
        features = connections[using].features
        if features.has_select_for_update:
            locked = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
            rows = rows.filter(pk__in=list(locked.values_list("pk", flat=True)))
        else:
            # SQLite locks with the first write; a transaction that reads first could not write any more once another
            # one has written in between.
            DeadLetterEvent.objects.using(using).filter(dead_letter__in=rows).delete()
        # Without the columns: Django's delete() reads the rows, and bodies may be large.
        _total, by_model = rows.only("pk").delete()
    return by_model.get(DeadLetter._meta.label, 0)


def warnings() -> list[Warned]:
    """Return what there is to say about ``DEAD_WARN_COUNT`` and ``DEAD_WARN_AGE_DAYS``; the queries are short."""
    limits, found = conf.current(), []
    waiting = Selection(status=OPEN, revoked=True).queryset()
    see = "See which: manage.py taskkit list --groups --revoked{}. Requeue them, or discard them; nothing is deleted."
    most = limits.dead_warn_count
    # Counting stops at the limit, however many there are.
    if most is not None and waiting.order_by()[: most + 1].count() > most:
        text = f"More than {most} dead letters wait for someone (TASKKIT['DEAD_WARN_COUNT'])."
        found.append(Warned(text, see.format("")))
    if (days := limits.dead_warn_age_days) is not None:
        # Status by status, so that the index gives the first one at once.
        oldest = [
            waiting.filter(status=status).order_by("died_at").values_list("died_at", flat=True).first()
            for status in (Status.DEAD, Status.HELD)
        ]
        died_at = min(filter(None, oldest), default=None)
        if died_at is not None and (age := (timezone.now() - died_at).days) >= days:
            text = f"The oldest dead letter has waited for {age} days (TASKKIT['DEAD_WARN_AGE_DAYS'] is {days})."
            found.append(Warned(text, see.format(f" --until {days}d")))
    return found
