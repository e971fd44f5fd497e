"""How often a message may be started before it counts as the one that kills its workers.

Celery gives such a message back for ever (celery issue 6103), and most brokers don't say how often they delivered it.
Starts are counted, not deliveries: a message that was only waiting in a worker beside the one that killed it is
delivered again as well, and is not to blame. A message that the broker delivers for the first time is not looked at,
and the count of one that has ended is forgotten.

The worker counts before it starts a message, and takes no other meanwhile. So a silent database holds it for
:data:`COUNT_TIMEOUT` seconds and the time of a connection, once, and is then left alone for a while.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from django.db import DatabaseError, IntegrityError, InterfaceError, router, transaction
from django.db.models import F
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq.durable import durable, forget_connection
from django_taskkit.dlq.models import Redelivery
from django_taskkit.dlq.pause import Pause, Troubles
from django_taskkit.dlq.text import bounded
from django_taskkit.envelope import GENERATION_HEADER
from django_taskkit.exceptions import TaskkitError

if TYPE_CHECKING:
    from datetime import timedelta

    from celery.worker.request import Request

    T = TypeVar("T")

logger = logging.getLogger("django_taskkit")

COUNT_TIMEOUT = 5.0
"""Seconds that counting one start may keep a worker waiting for the database that it is connected to."""

database_pause = Pause(seconds=15)
"""A thousand messages that are delivered again in an outage don't each wait for the database."""

_troubles = Troubles()


class DeliveryLimitError(TaskkitError):
    """A message was started as often as it may be, and none of its runs came to an end."""


def limit_of(request: Request) -> int | None:
    """Return how often the message behind ``request`` may be started; None if there is no limit.

    A message that is acknowledged before it runs is not delivered again once it was started.
    """
    if not request.task.acks_late:
        return None
    limit: int | None = getattr(request.task, "delivery_limit", None)
    if limit is None:
        return conf.current().delivery_limit
    return limit or None


def count_start(request: Request) -> int:
    """Count a start of a message that was delivered before; return how many that makes.

    Where the database can't say, a quorum queue's own count of deliveries must do, and elsewhere nothing: the
    message runs, since an outage is no reason to give it up.
    """
    key = _key(request)
    counted = _in_time(lambda using: _count(using, key))
    if counted is not None:
        return counted
    deliveries = (request.message.headers or {}).get("x-delivery-count")
    return deliveries + 1 if isinstance(deliveries, int) else 1


def forget_start(request: Request) -> None:
    """Forget how often the message behind ``request`` was started: it has ended.

    Where the database can't, :func:`forget_starts` does so some days later.
    """
    key = _key(request)
    _in_time(lambda using: Redelivery.objects.using(using).filter(key=key).delete()[0])


def forget_starts(age: timedelta) -> int:
    """Delete the counts of messages that were last started longer than ``age`` ago; return how many."""
    using = router.db_for_write(Redelivery)
    deleted, _ = Redelivery.objects.using(using).filter(at__lt=timezone.now() - age).delete()
    return deleted


def _in_time(action: Callable[[str], T]) -> T | None:
    """Return what ``action`` does with the database, whose alias it is given; None if that is not to be had now."""
    if database_pause.on:
        return None
    try:
        using = router.db_for_write(Redelivery)
        deadline = time.monotonic() + COUNT_TIMEOUT
        try:
            done = _try(using, deadline, action)
        except (DatabaseError, InterfaceError):
            if time.monotonic() >= deadline:
                raise
            # Two workers that write at once may be each other's deadlock, and an open connection may be a stale one.
            forget_connection(using)
            done = _try(using, deadline, action)
    except Exception as exc:
        database_pause.begin()
        _troubles.begins("database", "starts of messages that are delivered again can't be counted: %r", exc)
        return None
    database_pause.end()
    _troubles.ends("database", "starts of messages that are delivered again can be counted again")
    return done


def _try(using: str, deadline: float, action: Callable[[str], T]) -> T:
    with durable(using, max(0.1, deadline - time.monotonic())), transaction.atomic(using=using):
        return action(using)


def _count(using: str, key: str) -> int:
    rows = Redelivery.objects.using(using).filter(key=key)
    if not rows.update(starts=F("starts") + 1, at=timezone.now()):
        try:
            with transaction.atomic(using=using):
                # The first delivery was not counted.
                Redelivery.objects.using(using).create(key=key, starts=2, at=timezone.now())
        except IntegrityError:  # another worker was faster
            rows.update(starts=F("starts") + 1, at=timezone.now())
    return rows.values_list("starts", flat=True).get()


def _key(request: Request) -> str:
    headers = request.request_dict
    return bounded(f"{request.id}:{headers.get(GENERATION_HEADER) or 0}:{headers.get('retries') or 0}")
