"""Delete the results of Django's tasks some time after they have finished; never those that are still to come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime

from django.db import connections, router
from django.db.models import Q, QuerySet

from django_taskkit.backends.model import FINISHED, DjangoTaskResult
from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.dlq.pause import Gaps

BATCH = 500
"""Results that one statement deletes."""

OPEN = (Status.DEAD, Status.HELD, Status.REQUEUED)
"""Dead letters whose result stays: it is READY again when they are requeued."""


def purgeable(before: datetime) -> int:
    """Return how many results :func:`purge` would delete."""
    return sum(len(_without_open_letters(keys)) for keys in _oldest_first(_finished(before)))


def purge(
    before: datetime,
    *,
    progress: Callable[[int], object] | None = None,
    seconds: float | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Delete the results that finished before ``before``, the oldest first, and say how many that was.

    One whose dead letter is open stays, however old it is.

    Args:
        progress: is called with the number of results after each batch.
        seconds: ends after about that long; the rest is for the next time.
    """
    finished = _finished(before)
    gaps = Gaps(connections[finished.db].vendor)
    deleted, end = 0, None if seconds is None else clock() + seconds
    for keys in _oldest_first(finished):
        gaps.leave()
        # Again with what made them purgeable: one may have been requeued since.
        rows = finished.filter(pk__in=_without_open_letters(keys))
        _total, by_model = rows.only("pk").delete()
        count = by_model.get(DjangoTaskResult._meta.label, 0)
        deleted += count
        if progress is not None:
            progress(count)
        if end is not None and clock() >= end:
            break
    return deleted


def _finished(before: datetime) -> QuerySet[DjangoTaskResult]:
    using = router.db_for_write(DjangoTaskResult)
    return DjangoTaskResult.objects.using(using).filter(status__in=FINISHED, finished_at__lt=before)


def _without_open_letters(keys: list[str]) -> list[str]:
    # Not as a subquery: the letters may be in another database.
    letters = DeadLetter.objects.using(router.db_for_write(DeadLetter)).filter(task_id__in=keys, status__in=OPEN)
    stay = set(letters.values_list("task_id", flat=True))
    return [key for key in keys if key not in stay]


def _oldest_first(rows: QuerySet[DjangoTaskResult]) -> Iterator[list[str]]:
    # From where the last batch has ended: what stays is not looked at once more with each.
    in_order = rows.order_by("finished_at", "pk").values_list("finished_at", "pk")
    found = list(in_order[:BATCH])
    while found:
        yield [pk for _finished_at, pk in found]
        at, last = found[-1]
        rest = in_order.filter(finished_at__gte=at).filter(Q(finished_at__gt=at) | Q(finished_at=at, pk__gt=last))
        found = list(rest[:BATCH])
