"""Put dead letters back, or close them.

Each transition of a row is one conditional UPDATE, so two operators, two tabs or a double click do it once.
The message is published inside the transaction that claims the row: a crash in between leaves the row *dead*
and may run the task twice, never zero times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import timezone as utc_zone
from itertools import islice
from typing import Any, NamedTuple

from celery import Celery
from django.db import connections, router, transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from django.utils.translation import gettext as _

from django_taskkit import signals
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status
from django_taskkit.dlq.pause import Gaps
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.publisher import BrokerUnreachableError, Publisher
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.exceptions import PublishError

CHUNK = 500
"""Rows whose keys are held in memory at a time; their messages are read one by one."""

HEAVY = ("body", "headers", "properties", "traceback")
"""Columns that a report of thousands of refusals does not hold in memory."""

DeadLetters = QuerySet[DeadLetter] | DeadLetter | Iterable[DeadLetter]


class Refusal(NamedTuple):
    """A row that was left as it is, and why."""

    dead_letter: DeadLetter
    reason: str


@dataclass(frozen=True, kw_only=True)
class RequeueReport:
    """What :func:`requeue` did."""

    requeued: int = 0
    refused: tuple[Refusal, ...] = ()
    not_tried: int = 0
    """Rows that were left alone because the broker could not be reached for the one before them."""


@dataclass(frozen=True, kw_only=True)
class DiscardReport:
    """What :func:`discard` did."""

    discarded: int = 0
    refused: tuple[Refusal, ...] = ()


def requeue(
    dead_letters: DeadLetters,
    *,
    by: Any = None,
    queue: str | None = None,
    countdown: float | None = None,
    force: bool = False,
    even_if_ran: bool = False,
    app: Celery | None = None,
) -> RequeueReport:
    """Put messages back on their queue: the same id, body and headers, with no retries used.

    Args:
        dead_letters: a dead letter, several, or a queryset of any size.
        by: who does it, a user or a name; kept in the history.
        queue: another queue than the one each message came from.
        countdown: seconds until the tasks may run.
        force: also send messages again that were requeued and have not ended, because they are lost: somebody emptied
            the queue, or it has no worker. One that still waits or runs will run twice.
        even_if_ran: also send messages again whose task had ended well, and only its result or what follows it could
            not be stored or sent (``body_ran``). What the task does will be done once more.
        app: the Celery app whose broker takes them; by default the current one.

    Only rows that are *dead* (with ``force``: or *requeued*) are put back; every other one is in ``refused`` with the
    reason. When the broker can't be reached, the row that was tried is refused, keeps its status, and the rest is not
    tried.

    Raises:
        NoAppError: no ``app`` is given, and this process has none of the project's.
    """
    # In UTC whatever USE_TZ says: what has no time zone would be read in that of Celery.
    eta = None if countdown is None else datetime.now(utc_zone.utc) + timedelta(seconds=countdown)
    allowed = [Status.DEAD, Status.REQUEUED] if force else [Status.DEAD]
    requeued, not_tried = 0, 0
    refused: list[Refusal] = []
    with Publisher(app or project_app()) as publisher:
        rows = _keys(dead_letters)
        using = router.db_for_write(DeadLetter)
        gaps = Gaps(connections[using].vendor)
        for pk in rows:
            gaps.leave()
            try:
                publisher.connect()  # not while the row is locked, which on SQLite is the whole database
                with transaction.atomic(using=using):
                    changes = {"status": Status.REQUEUED, "requeue_count": F("requeue_count") + 1}
                    row = _claim(pk, allowed, changes, even_if_ran=even_if_ran)
                    if isinstance(row, Refusal):
                        refused.append(row)
                        continue
                    _remember(row, DeadLetterEvent.Kind.REQUEUED, by, note=f"to queue {queue}" if queue else "")
                    publisher.publish(row.envelope.again(generation=row.requeue_count, eta=eta), queue, countdown)
            except PublishError as exc:
                row = DeadLetter.objects.using(using).defer(*HEAVY).filter(pk=pk).first() or DeadLetter(pk=pk)
                refused.append(Refusal(row, str(exc)))
                if isinstance(exc, BrokerUnreachableError):
                    not_tried = sum(1 for _rest in rows)
                continue
            requeued += 1
            signals.announce(
                signals.task_requeued,
                signals.Requeued(
                    task_id=row.task_id,
                    task_name=row.task_name,
                    dead_letter_id=row.pk,
                    generation=row.requeue_count,
                    by=_name(by),
                ),
            )
    return RequeueReport(requeued=requeued, refused=tuple(refused), not_tried=not_tried)


def discard(dead_letters: DeadLetters, *, by: Any = None, note: str = "", force: bool = False) -> DiscardReport:
    """Close dead letters without running them; the rows stay, with who did it and the ``note``.

    With ``force`` also rows that are *requeued*, whose message is lost; one that is not will still run.
    """
    allowed = [Status.DEAD, Status.HELD, Status.REQUEUED] if force else [Status.DEAD, Status.HELD]
    discarded = 0
    refused: list[Refusal] = []
    using = router.db_for_write(DeadLetter)
    gaps = Gaps(connections[using].vendor)
    for pk in _keys(dead_letters):
        gaps.leave()
        with transaction.atomic(using=using):
            row = _claim(pk, allowed, {"status": Status.DISCARDED})
            if isinstance(row, Refusal):
                refused.append(row)
                continue
            _remember(row, DeadLetterEvent.Kind.DISCARDED, by, note=note)
        discarded += 1
        signals.announce(
            signals.task_discarded,
            signals.Discarded(
                task_id=row.task_id, task_name=row.task_name, dead_letter_id=row.pk, by=_name(by), note=note
            ),
        )
    return DiscardReport(discarded=discarded, refused=tuple(refused))


def _claim(pk: int, allowed: list[Status], changes: dict[str, Any], even_if_ran: bool = True) -> DeadLetter | Refusal:
    rows = DeadLetter.objects.using(router.db_for_write(DeadLetter)).filter(pk=pk)
    able = rows.filter(status__in=allowed) if even_if_ran else rows.filter(status__in=allowed, body_ran=False)
    if able.update(**changes):
        return rows.get()
    row = rows.defer(*HEAVY).first()
    if row is None:
        return Refusal(DeadLetter(pk=pk), _("it was deleted"))
    if row.status in allowed:
        return Refusal(row, _("its task had ended well, and would do its work once more"))
    return Refusal(row, _("it is %(status)s by now") % {"status": row.get_status_display()})


def _remember(row: DeadLetter, kind: DeadLetterEvent.Kind, by: Any, note: str) -> None:
    DeadLetterEvent.objects.using(router.db_for_write(DeadLetter)).create(
        dead_letter=row,
        kind=kind,
        at=timezone.now(),
        by=_name(by),
        generation=row.requeue_count,
        note=storable(note),
    )


def _name(by: Any) -> str:
    username: Callable[[], str] | None = getattr(by, "get_username", None)
    return bounded(username() if username else by)


def _keys(dead_letters: DeadLetters) -> Iterator[int]:
    """Yield primary keys, a bounded number in memory, and no cursor open while rows are written."""
    if isinstance(dead_letters, DeadLetter):
        yield dead_letters.pk
    elif isinstance(dead_letters, QuerySet) and not dead_letters.query.is_sliced:
        last: int | None = None
        while True:
            rest = dead_letters if last is None else dead_letters.filter(pk__gt=last)
            chunk = list(rest.order_by("pk").values_list("pk", flat=True)[:CHUNK])
            yield from chunk
            if len(chunk) < CHUNK:
                return
            last = chunk[-1]
    else:
        rows = iter(dead_letters)
        while chunk := [row.pk for row in islice(rows, CHUNK)]:
            yield from chunk
