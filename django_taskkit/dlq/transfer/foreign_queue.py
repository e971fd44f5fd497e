"""Bring a queue of dead letters of the project's own making into the table, once.

For one that RabbitMQ's dead-letter exchange goes on filling, there is the intake (:mod:`django_taskkit.dlq.intake`),
which reads the messages in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from celery import Celery
from django.db import router
from django.utils import timezone

from django_taskkit.dlq import rows, spool
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.intake import death_of
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent
from django_taskkit.dlq.reader import Reader, reader
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.exceptions import TaskkitError

KNOWN_FROM = "which taskkit import was told to read"


class UnfitQueueError(TaskkitError):
    """The queue can't be one of dead letters, or can't be read."""


@dataclass(frozen=True, kw_only=True)
class Drained:
    """What became of the messages of a queue."""

    imported: int = 0
    known: int = 0
    """Those whose dead letter was in the table already."""
    set_aside: int = 0
    """Those that the database refuses, which are files in the spool's folder now."""


@contextmanager
def opened(app: Celery, name: str, *, force: bool = False) -> Iterator[Reader]:
    """Connect to the broker, and make sure that ``name`` may be emptied.

    Args:
        force: also a queue that the app itself knows.

    Raises:
        UnfitQueueError: the broker is not RabbitMQ, or somebody consumes from the queue, or the app knows it.
        NoQueueError: there is no such queue.
        BrokerUnreachableError: no connection, or it broke within the block.
    """
    driver = app.connection_for_write().transport.driver_type
    if driver != "amqp":
        raise UnfitQueueError(
            f"the project's broker is {driver}, and not RabbitMQ; "
            "a queue of another broker is brought in by the relay: name it in TASKKIT['INTAKE_QUEUES']"
        )
    if name in app.amqp.queues and not force:
        raise UnfitQueueError(
            f"the app knows the queue {name!r}, so tasks may wait in it that are to run; "
            "if all that is in it is dead, say --force"
        )
    with reader(app) as broker:
        if consumers := broker.consumers(name):
            raise UnfitQueueError(
                f"the queue {name!r} has {consumers} consumer{'' if consumers == 1 else 's'}, so what is in it is to "
                "run; stop them if it is dead"
            )
        yield broker


def drain(app: Celery, broker: Reader, name: str, *, by: str, each: Callable[[], object]) -> Drained:
    """Make dead letters of all messages in the queue ``name``; ``each`` is called after every one.

    A message is acknowledged when its row is committed: one that is not is in the queue afterwards.

    Raises:
        DatabaseDownError: the database takes no dead letters; the rest is still in the queue.
        UnfitQueueError: the database refuses one, and so does the disk; it and the rest are still in the queue.
        BrokerUnreachableError: the connection broke; the rest is still in the queue.
    """
    imported = known = set_aside = 0
    with rows.several():
        for message in broker.messages(name):
            death = death_of(app, message, name, known_from=KNOWN_FROM)
            try:
                if rows.write(death, late=True):
                    _remember(death, by, f"from the queue {name}")
                    imported += 1
                else:
                    known += 1
            except rows.DatabaseDownError:
                message.requeue()
                raise
            except rows.RowRefusedError as exc:
                if not spool.set_aside(death, exc):
                    message.requeue()
                    raise UnfitQueueError(f"neither database nor disk takes a message of the queue {name!r}") from exc
                set_aside += 1
            message.ack()
            each()
    return Drained(imported=imported, known=known, set_aside=set_aside)


def _remember(death: Death, by: str, note: str) -> None:
    using = router.db_for_write(DeadLetter)
    row = DeadLetter.objects.using(using).only("pk").get(task_id=bounded(death.envelope.task_id))
    DeadLetterEvent.objects.using(using).create(
        dead_letter=row,
        kind=DeadLetterEvent.Kind.IMPORTED,
        at=timezone.now(),
        by=bounded(by),
        generation=death.envelope.generation,
        note=storable(note),
    )
