"""One row per task that died: :func:`write` puts a death into the table, once, whoever reports it again.

:func:`recover` marks the row of a task that was requeued and has succeeded.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import (
    DatabaseError,
    IntegrityError,
    InterfaceError,
    router,
    transaction,
)
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Greatest
from django.utils import timezone

from django_taskkit import signals
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.durable import NoConnectionError, durable, forget_connection, kept_open
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Reason, Status
from django_taskkit.dlq.recovery import Recovery
from django_taskkit.dlq.text import bounded, shortened
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import TaskkitError

logger = logging.getLogger("django_taskkit")

WRITE_TIMEOUT = 30.0
"""Seconds that one death may keep a worker waiting for the database."""

CLOCKS_DIFFER = timedelta(seconds=60)
"""How far the clocks of workers, brokers and operators may be apart."""

_PLAIN_LIMIT = 1_000
"""Characters of text in a row that the database refused at first."""

_OPEN = (Status.DEAD, Status.HELD)
_DEATHS = [DeadLetterEvent.Kind.DIED, DeadLetterEvent.Kind.HELD]
_MOVES = [DeadLetterEvent.Kind.REQUEUED, DeadLetterEvent.Kind.RECOVERED, DeadLetterEvent.Kind.DISCARDED]


class DatabaseDownError(TaskkitError):
    """The database takes no dead letter at all now."""


class RowRefusedError(TaskkitError):
    """The database takes dead letters, but not this one."""


def write(death: Death, *, late: bool = False) -> bool:
    """Put ``death`` into the table; False if it is there already.

    The first failure to write may be a connection that went stale while the task ran: it is closed and the
    write is tried once more, then once with short ASCII texts in case the texts were what was refused.

    ``late`` is for a death that was kept somewhere else meanwhile. The row becomes what it would be if the death had
    been written when it happened: what was requeued or closed since then stays so.

    Raises:
        DatabaseDownError: not written, and no other would be.
        RowRefusedError: not written, though others are.
    """
    row: DeadLetter | None = _first_taken(
        *(partial(_write, attempt, late=late) for attempt in (death, death, _plain(death)))
    )
    if row is not None:
        _announce_death(row)
    return row is not None


def recover(recovery: Recovery) -> bool:
    """Mark the row of a requeued message that succeeded, or ended by ``Ignore``; False if there was none.

    The row may also be *dead* or *held*: a publish that seemed to fail and had reached the broker after all. Tried
    once more over a fresh connection.

    Raises:
        DatabaseDownError: not marked, and nothing else would be written.
        RowRefusedError: not marked, though others are written.
    """
    row: DeadLetter | None = _first_taken(*[partial(_recover, recovery)] * 2)
    if row is None:
        return False
    event = signals.Recovered(
        task_id=row.task_id, task_name=row.task_name, dead_letter_id=row.pk, generation=recovery.generation
    )
    signals.announce(signals.task_recovered, event)
    return True


def bring_in(entry: Death | Recovery) -> None:
    """Put what a spool kept into the table; raises what :func:`write` and :func:`recover` do."""
    if isinstance(entry, Recovery):
        recover(entry)
    else:
        write(entry, late=True)


def _first_taken(*actions: Callable[[], Any]) -> Any:
    """Return what the first of ``actions`` returns that the database takes, in time."""
    deadline = time.monotonic() + WRITE_TIMEOUT
    failure: Exception
    for action in actions:
        try:
            return _in_time(deadline, action)
        except NoConnectionError as exc:
            raise DatabaseDownError(str(exc)) from exc
        except Exception as exc:
            _forget_broken(exc)
            failure = exc
            if time.monotonic() >= deadline:
                break
    reason = f"{type(failure).__name__}: {failure}"
    if works(deadline):
        raise RowRefusedError(reason) from failure
    raise DatabaseDownError(reason) from failure


def _in_time(deadline: float, action: Callable[[], Any]) -> Any:
    using = router.db_for_write(DeadLetter)
    with durable(using, max(0.1, deadline - time.monotonic())):
        return action()


def several() -> AbstractContextManager[None]:
    """Return a block in which several deaths are written over one connection."""
    return kept_open(router.db_for_write(DeadLetter))


def works(deadline: float | None = None) -> bool:
    """Say whether the table takes a small row, which is not kept."""
    deadline = deadline or time.monotonic() + WRITE_TIMEOUT
    if time.monotonic() >= deadline:
        return False
    using = router.db_for_write(DeadLetter)
    small = Death(
        envelope=Envelope(body=b"", content_type="", content_encoding="", headers={"id": f"probe-{uuid.uuid4()}"}),
        task_name="",
        reason=Reason.BROKER,
        died_at=timezone.now(),
    )

    def insert() -> None:
        with transaction.atomic(using=using):
            DeadLetter.objects.using(using).create(task_id=small.envelope.task_id, **small.columns())
            transaction.set_rollback(True, using=using)

    try:
        _in_time(deadline, insert)
    except Exception as exc:
        _forget_broken(exc)
        return False
    return True


def _forget_broken(exc: Exception) -> None:
    if isinstance(exc, (DatabaseError, InterfaceError)):
        forget_connection(router.db_for_write(DeadLetter))


def _write(death: Death, *, late: bool = False) -> DeadLetter | None:
    """Insert the row or reopen the one that waits for this death; None if the death is known already."""
    using = router.db_for_write(DeadLetter)
    task_id, generation = bounded(death.envelope.task_id), death.envelope.generation
    columns = {**death.columns(), "status": Status.HELD if death.held else Status.DEAD}
    with transaction.atomic(using=using):
        try:
            with transaction.atomic(using=using):
                row = DeadLetter.objects.using(using).create(task_id=task_id, requeue_count=generation, **columns)
        except IntegrityError:
            rows = DeadLetter.objects.using(using).filter(task_id=task_id)
            if late and _is_overtaken(rows, death):
                return None
            count = Greatest(F("requeue_count"), generation)
            if not rows.filter(_is_news(generation)).update(requeue_count=count, **columns):
                _compare(rows.get(), death)
                return None
            row = rows.get()
        _remember(row, death)
    return row


def _recover(recovery: Recovery) -> DeadLetter | None:
    using = router.db_for_write(DeadLetter)
    rows = DeadLetter.objects.using(using).filter(task_id=bounded(recovery.task_id))
    with transaction.atomic(using=using):
        waiting = rows.filter(
            status__in=[Status.REQUEUED, *_OPEN],
            requeue_count__lte=recovery.generation,
        )
        if not waiting.update(status=Status.RECOVERED, requeue_count=recovery.generation):
            return None
        row = rows.get()
        DeadLetterEvent.objects.using(using).create(
            dead_letter=row,
            kind=DeadLetterEvent.Kind.RECOVERED,
            at=recovery.at,
            generation=recovery.generation,
            note=recovery.note,
        )
    return row


def _is_news(generation: int) -> Q:
    """Select the row if a death in ``generation`` changes it.

    A requeued row takes any: where it is an old message that was delivered once more, the one that was requeued
    still closes the row when it succeeds. A recovered row is opened by another generation only, which is a new message
    under an old id; a discarded row by any, for the same reason. A dead or held row knows already.
    """
    recovered = Q(status=Status.RECOVERED) & ~Q(requeue_count=generation)
    return Q(status=Status.REQUEUED) | recovered | Q(status=Status.DISCARDED)


def _is_overtaken(rows: QuerySet[DeadLetter], death: Death) -> bool:
    """Say whether the row has moved on since ``death``; its history gets what it did not know.

    A task id may be used again, for a nightly task say: a death some time after the last move is a new one.
    """
    generation = death.envelope.generation
    # Locked where the database can, so that no requeue comes in between.
    row = rows.select_for_update().only("status", "requeue_count").get()
    events = DeadLetterEvent.objects.using(row._state.db).filter(dead_letter=row)
    if not events.filter(kind__in=_MOVES, at__gt=death.died_at - CLOCKS_DIFFER).exists():
        return False
    known = events.filter(kind__in=_DEATHS, generation=generation).exists()
    if not known and row.status == Status.REQUEUED and row.requeue_count <= generation:
        return False  # the very message that was requeued
    if not known:
        _remember(row, death)
    return True


def _remember(row: DeadLetter, death: Death) -> None:
    DeadLetterEvent.objects.using(row._state.db).create(
        dead_letter=row,
        kind=DeadLetterEvent.Kind.HELD if death.held else DeadLetterEvent.Kind.DIED,
        at=death.died_at,
        generation=death.envelope.generation,
        note=shortened(": ".join(filter(None, [death.exception_class, death.exception_message])), _PLAIN_LIMIT),
    )


def _compare(row: DeadLetter, death: Death) -> None:
    if row.status in _OPEN and bytes(row.body) != death.envelope.body:
        logger.error(
            "task %s[%s] died, and so did another message under the same id, which its dead letter keeps; "
            "task ids have to be unique",
            death.task_name,
            death.envelope.task_id,
        )


def _plain(death: Death) -> Death:
    def ascii_only(text: str) -> str:
        return shortened(text.encode("ascii", "backslashreplace").decode(), _PLAIN_LIMIT)

    return replace(
        death,
        exception_message=ascii_only(death.exception_message),
        traceback=ascii_only(death.traceback),
        exception_class=bounded(death.exception_class.encode("ascii", "backslashreplace").decode()),
    )


def _announce_death(row: DeadLetter) -> None:
    event: dict[str, Any] = {
        name: getattr(row, name)
        for name in ("task_id", "task_name", "reason", "exception_class", "exception_message", "attempts")
    }
    signals.announce(
        signals.task_dead_lettered,
        signals.DeadLettered(dead_letter_id=row.pk, generation=row.requeue_count, **event),
    )
