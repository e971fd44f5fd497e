"""Put dead letters back, or close them.

Rows are taken a chunk at a time: one transaction locks those that are still *dead* (or *held*), publishes their
messages, and writes down that they were requeued; where the broker confirms, the one while the other is under way. So
two operators, two tabs or a double click do it once, and a crash in between leaves the rows as they were and may run
tasks twice, never zero times.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from datetime import timezone as utc_zone
from typing import Any

from celery import Celery
from django.db import connections, router, transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from django_taskkit import signals
from django_taskkit.dlq.bulk.publish import BulkPublisher
from django_taskkit.dlq.bulk.requeueing import Requeueing
from django_taskkit.dlq.bulk.rows import (
    HEAVY,
    DeadLetters,
    Refusal,
    Taken,
    by_size,
    key_chunks,
    move,
    refused,
    take,
    workflow_waits,
    write_history,
)
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status
from django_taskkit.dlq.pause import Gaps
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.result_states import ResultStates
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.exceptions import PublishError, TaskkitError

__all__ = ["CHUNK", "HEAVY", "DiscardReport", "Refusal", "RequeueReport", "discard", "requeue"]

CHUNK = 2000
"""Rows that are changed in one transaction, where the database takes so many parameters in a statement."""

OTHER_PARAMETERS = 50
"""Parameters of a statement besides the keys."""

NAMED = 10_000
"""Requeued rows that a report names; of more it says only how many."""


@dataclass(frozen=True, kw_only=True)
class RequeueReport:
    """What :func:`requeue` did."""

    requeued: int = 0
    refused: tuple[Refusal, ...] = ()
    not_tried: int = 0
    """Rows that were left alone because the broker could not be reached for those before them."""
    outage: str = ""
    """Why the broker could not be reached; empty where it could."""
    generations: Mapping[int, int] = field(default_factory=dict)
    """Primary keys of the rows that were requeued, with the number of the requeue; of the first 10 000 only."""


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
    not_before: datetime | None = None,
    force: bool = False,
    even_if_ran: bool = False,
    reset_results: bool = False,
    only_at: Mapping[int, int] | None = None,
    app: Celery | None = None,
) -> RequeueReport:
    """Put messages back on their queue: the same id, body and headers, with no retries used.

    Args:
        dead_letters: a dead letter, several, their primary keys, or a queryset of any size.
        by: who does it, a user or a name; kept in the history.
        queue: another queue than the one each message came from.
        countdown: seconds until the tasks may run.
        not_before: the time from which on they may run; one without a time zone is in Django's.
        force: also send messages again that were requeued and have not ended, because they are lost: somebody emptied
            the queue, or it has no worker. One that still waits or runs will run twice.
        even_if_ran: also send messages again whose task had ended well, and only its result or what follows it could
            not be stored or sent (``body_ran``). What the task does will be done once more.
        reset_results: set the state of their results to *PENDING*, where it is *FAILURE* until the task ends
            otherwise. Where the result backend doesn't take it, the log says so and the messages are sent all the same.
        only_at: how often each row, by its primary key, had been requeued when this was decided; one that has been
            requeued since is refused. For a decision that is carried out later.
        app: the Celery app whose broker takes them; by default the current one.

    Only rows that are *dead* or *held* (with ``force``: or *requeued*) are put back; every other one is in ``refused``
    with the reason. When the broker can't be reached, the rows that were tried are refused and keep their status, and
    the rest is not tried.

    Raises:
        NoAppError: no ``app`` is given, and this process has none of the project's.
        ValueError: both ``countdown`` and ``not_before``.
    """
    if countdown is not None and not_before is not None:
        raise ValueError("give requeue() a countdown or a time not_before, not both")
    # In UTC whatever USE_TZ says: what has no time zone would be read in that of Celery.
    eta = _utc(not_before) if not_before else None
    if countdown is not None:
        eta = datetime.now(utc_zone.utc) + timedelta(seconds=countdown)
    app = app or project_app()
    using = router.db_for_write(DeadLetter)
    gaps = Gaps(connections[using].vendor)
    results = ResultStates(app, using) if reset_results else None
    requeued = 0
    refusals: list[Refusal] = []
    generations: dict[int, int] = {}
    with BulkPublisher(app) as publisher:
        work = Requeueing(publisher, using, _name(by), queue, eta, force, even_if_ran, results, only_at)
        sizes: dict[int, int] = {}
        chunks = key_chunks(dead_letters, _chunk_size(using), sizes)
        for keys in chunks:
            try:
                publisher.connect()  # not while rows are locked, which on SQLite is the whole database
            except PublishError as exc:
                refusals += refused(using, {keys[0]: str(exc)})
                not_tried = len(keys) - 1 + sum(map(len, chunks))
                return _report(requeued, refusals, generations, not_tried, str(exc))
            done = 0
            for part in by_size(using, keys, publisher.at_once, sizes):
                gaps.leave()
                done += len(part)
                sent, not_sent, outage = work.requeue(part)
                requeued += len(sent)
                refusals += not_sent
                if len(generations) < NAMED:
                    generations.update((row.pk, row.requeue_count + 1) for row in sent)
                if outage:
                    not_tried = len(keys) - done + sum(map(len, chunks))
                    return _report(requeued, refusals, generations, not_tried, outage)
    return _report(requeued, refusals, generations)


def _chunk_size(using: str) -> int:
    most = connections[using].features.max_query_params  # of SQLite: 999 before Django 6
    return CHUNK if most is None else min(CHUNK, most - OTHER_PARAMETERS)


def _report(
    requeued: int,
    refusals: Sequence[Refusal],
    generations: Mapping[int, int],
    not_tried: int = 0,
    outage: str = "",
) -> RequeueReport:
    return RequeueReport(
        requeued=requeued, refused=tuple(refusals), not_tried=not_tried, outage=outage, generations=generations
    )


def discard(
    dead_letters: DeadLetters, *, by: Any = None, note: str = "", force: bool = False, app: Celery | None = None
) -> DiscardReport:
    """Close dead letters without running them; the rows stay, with who did it and the ``note``.

    With ``force`` also rows that are *requeued*, whose message is lost; one that is not will still run. The failure of
    a *held* one, or of one that was held when it was requeued, is handed on now, to its chord, its error callbacks and
    its result; if that can't be done, it is refused and stays as it is. ``app`` is the Celery app for that, by default
    the current one.
    """
    allowed = [Status.DEAD, Status.HELD, *([Status.REQUEUED] if force else [])]
    using, name = router.db_for_write(DeadLetter), _name(by)
    gaps = Gaps(connections[using].vendor)
    discarded = 0
    refusals: list[Refusal] = []
    for keys in key_chunks(dead_letters, _chunk_size(using)):
        gaps.leave()
        with transaction.atomic(using=using):
            taken, not_taken = take(using, keys, allowed)
            waited_for = workflow_waits(using, taken)
            closed = [row for row in taken if row.pk not in waited_for]
            _close(using, closed, name, note)
        refusals += not_taken
        for row in (row for row in taken if row.pk in waited_for):
            gaps.leave()
            refusal = _discard_held(using, row, name, note, app)
            if refusal is None:
                closed.append(row)
            else:
                refusals.append(refusal)
        discarded += len(closed)
        for row in closed:
            signals.announce(
                signals.task_discarded,
                signals.Discarded(
                    task_id=row.task_id, task_name=row.task_name, dead_letter_id=row.pk, by=name, note=note
                ),
            )
    return DiscardReport(discarded=discarded, refused=tuple(refusals))


def _discard_held(using: str, held: Taken, by: str, note: str, app: Celery | None) -> Refusal | None:
    """Close one row whose workflow waits for it, in a transaction of its own: it ends when the failure is handed on.

    A crash in between leaves the row held, and its failure may be handed on twice, never not at all.
    """
    from django_taskkit.dlq.handing_on import hand_on

    try:
        with transaction.atomic(using=using):
            taken, refusals = take(using, [held.pk], [Status(held.status)])
            if not taken:
                return refusals[0]
            row = DeadLetter.objects.using(using).get(pk=held.pk)
            _close(using, taken, by, note)
            hand_on(row, app=app)
    except TaskkitError as exc:
        return refused(using, {held.pk: str(exc)})[0]
    except Exception as exc:
        cause = f"{type(exc).__name__}: {storable(str(exc))}"
        return refused(using, {held.pk: _("its failure could not be handed on: %s") % cause})[0]
    return None


def _close(using: str, rows: Sequence[Taken], by: str, note: str) -> None:
    if rows:
        move(using, rows, Status.DISCARDED)
        write_history(using, rows, DeadLetterEvent.Kind.DISCARDED, at=timezone.now(), by=by, note=note)


def _name(by: Any) -> str:
    username: Callable[[], str] | None = getattr(by, "get_username", None)
    return bounded(username() if username else by)


def _utc(moment: datetime) -> datetime | None:
    """Return ``moment`` in UTC, which a naive one is told by Django's zone; None if it has passed."""
    moment = (timezone.make_aware(moment) if timezone.is_naive(moment) else moment).astimezone(utc_zone.utc)
    return moment if moment > datetime.now(utc_zone.utc) else None
