"""Writing down what became of a message.

The life of a failing task, as far as this module sees it:

1. A task raises, its retries (if any) are used up, and the worker is about to store the failure.
2. :func:`record` writes one :class:`DeadLetter` row and a *died* entry in its history, in one transaction,
   before Celery stores anything and before a late acknowledgement. Celery reports some deaths twice and brokers
   deliver some messages twice: the second report of the same death finds the row and changes nothing.
3. An operator requeues the row. The message carries its *generation*, the number of requeues so far.
4. It succeeds: :func:`recover` marks the row *recovered*. Or it dies again: :func:`record` finds the row
   *requeued*, describes the new death in it, and adds to its history.

Nothing here raises into the worker. What could not be written is said in the log, with the task id.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    connections,
    router,
    transaction,
)
from django.db.models import F, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from django_taskkit import signals
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status
from django_taskkit.dlq.text import bounded, shortened

logger = logging.getLogger("django_taskkit")

_PLAIN_LIMIT = 1_000
"""Characters of text in a row that the database refused at first."""


def record(death: Death) -> bool:
    """Write ``death`` down; True if it is (or already was) in the table.

    The first failure to write may be a connection that went stale while the task ran: it is closed and the
    write is tried once more, then once with short ASCII texts in case the texts were what was refused.
    """
    task_id = death.envelope.task_id
    for attempt in (death, death, _plain(death)):
        try:
            row = _write(attempt)
        except Exception as exc:  # one of the two edges where anything is caught: the worker must live on
            _forget_connection(exc)
            failure = exc
            continue
        if row is not None:
            _announce_death(row)
        return True
    logger.critical(
        "task %s[%s] died (%s) and its dead letter could not be written: %s: %s",
        death.task_name,
        task_id,
        death.reason,
        type(failure).__name__,
        failure,
    )
    return False


def _write(death: Death) -> DeadLetter | None:
    """Insert the row or reopen the one that waits for this death; None if the death is known already."""
    using = router.db_for_write(DeadLetter)
    task_id, generation = bounded(death.envelope.task_id), death.envelope.generation
    columns = death.columns()
    with transaction.atomic(using=using):
        try:
            with transaction.atomic(using=using):
                row = DeadLetter.objects.using(using).create(task_id=task_id, requeue_count=generation, **columns)
        except IntegrityError:
            rows = DeadLetter.objects.using(using).filter(task_id=task_id)
            count = Greatest(F("requeue_count"), generation)
            if not rows.filter(_is_news(generation)).update(status=Status.DEAD, requeue_count=count, **columns):
                _compare(rows.get(), death)
                return None
            row = rows.get()
        DeadLetterEvent.objects.using(using).create(
            dead_letter=row,
            kind=DeadLetterEvent.Kind.DIED,
            at=death.died_at,
            generation=generation,
            note=_note(row),
        )
    return row


def _is_news(generation: int) -> Q:
    """Select the row if a death in ``generation`` changes it.

    A requeued row takes any: where it is an old message that was delivered once more, the one that was requeued
    still closes the row when it succeeds. A recovered row is opened by another generation only, which is a new message
    under an old id; a discarded row by any, for the same reason. A dead row knows already.
    """
    recovered = Q(status=Status.RECOVERED) & ~Q(requeue_count=generation)
    return Q(status=Status.REQUEUED) | recovered | Q(status=Status.DISCARDED)


def _compare(row: DeadLetter, death: Death) -> None:
    if row.status == Status.DEAD and bytes(row.body) != death.envelope.body:
        logger.error(
            "task %s[%s] died, and so did another message under the same id, which its dead letter keeps; "
            "task ids have to be unique",
            death.task_name,
            death.envelope.task_id,
        )


def recover(task_id: str, generation: int, note: str = "") -> bool:
    """Mark the row of a requeued message that succeeded, or ended by ``Ignore``; True if there was one.

    The row may also be *dead*: a publish that seemed to fail and had reached the broker after all.
    """
    try:
        using = router.db_for_write(DeadLetter)
        with transaction.atomic(using=using):
            rows = DeadLetter.objects.using(using).filter(
                task_id=bounded(task_id),
                status__in=[Status.REQUEUED, Status.DEAD],
                requeue_count__lte=generation,
            )
            if not rows.update(status=Status.RECOVERED, requeue_count=generation):
                return False
            row = DeadLetter.objects.using(using).get(task_id=bounded(task_id))
            DeadLetterEvent.objects.using(using).create(
                dead_letter=row,
                kind=DeadLetterEvent.Kind.RECOVERED,
                at=timezone.now(),
                generation=generation,
                note=note,
            )
    except Exception as exc:  # the task has succeeded; that must not turn into a failure here
        _forget_connection(exc)
        logger.exception("task %s succeeded after a requeue, but its dead letter could not be marked", task_id)
        return False
    signals.announce(
        signals.task_recovered,
        signals.Recovered(task_id=row.task_id, task_name=row.task_name, dead_letter_id=row.pk, generation=generation),
    )
    return True


def _plain(death: Death) -> Death:
    def ascii_only(text: str) -> str:
        return shortened(text.encode("ascii", "backslashreplace").decode(), _PLAIN_LIMIT)

    return replace(
        death,
        exception_message=ascii_only(death.exception_message),
        traceback=ascii_only(death.traceback),
        exception_class=bounded(death.exception_class.encode("ascii", "backslashreplace").decode()),
    )


def _forget_connection(exc: Exception) -> None:
    """Close a connection that an error may have broken, unless a transaction of the caller's is open on it."""
    if not isinstance(exc, (DatabaseError, InterfaceError)):
        return
    connection = connections[router.db_for_write(DeadLetter)]
    if not connection.in_atomic_block:
        with suppress(Exception):  # PyMySQL complains of a connection that is closed already; Django forgets it anyway
            connection.close()


def _note(row: DeadLetter) -> str:
    return shortened(": ".join(filter(None, [row.exception_class, row.exception_message])), _PLAIN_LIMIT)


def _announce_death(row: DeadLetter) -> None:
    event: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("task_id", "task_name", "reason", "exception_class", "exception_message", "attempts")
    }
    signals.announce(
        signals.task_dead_lettered,
        signals.DeadLettered(dead_letter_id=row.pk, generation=row.requeue_count, **event),
    )
