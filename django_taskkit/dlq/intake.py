"""Bring into the table what the broker itself declared dead.

RabbitMQ moves messages that are rejected, that expire, overflow their queue or were delivered too often to the queue's
dead-letter exchange, and drops them where it has none. No worker sees it. A project binds a queue of its own to that
exchange and names it in ``TASKKIT["INTAKE_QUEUES"]``; :func:`drain` empties it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from datetime import timezone as utc_zone
from typing import Any

from celery import Celery
from django.conf import settings as django_settings
from django.utils import timezone
from kombu import Message

from django_taskkit import conf
from django_taskkit.dlq import rows, spool
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.grouping import fingerprint
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.pause import Troubles
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.dlq.reader import Reader, reader
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import NoQueueError

_REASONS = {
    "rejected": Reason.REJECTED,
    "expired": Reason.EXPIRED,
    "delivery_limit": Reason.DELIVERY_LIMIT,
}
"""RabbitMQ's words; an overflow (``maxlen``) and what later releases may add are the broker's own reasons."""

_DELAY_QUEUE = re.compile(r"celery_delayed_\d+$")

_troubles = Troubles()


def drain(app: Celery, limit: int) -> int:
    """Bring at most ``limit`` messages of the intake queues into the table; returns how many.

    A message is acknowledged when its row is committed. While the database is down they stay where they are, which is
    as safe a place as the spool.
    """
    queues = conf.current().intake_queues
    if not queues or limit < 1:
        return 0
    count = 0
    try:
        with reader(app) as broker:
            for number, name in enumerate(queues):
                # A share for each, so that a flood in one does not keep the others waiting.
                share = -(-(limit - count) // (len(queues) - number))
                taken = _drain_queue(app, broker, name, share)
                if taken is None:
                    break
                count += taken
    except BrokerUnreachableError as exc:
        _troubles.begins("broker", "the intake queues can't be read: %s", exc)
        return count
    _troubles.ends("broker", "the intake queues can be read again")
    return count


def _drain_queue(app: Celery, broker: Reader, name: str, limit: int) -> int | None:
    """Return how many messages were brought in; None if the database is down."""
    try:
        # Looked at first: a message that is taken and put back too often would reach a queue's own delivery limit.
        waiting = broker.size(name)
    except NoQueueError:
        _troubles.begins(
            name,
            "TASKKIT['INTAKE_QUEUES'] names the queue %r, which the broker does not have; "
            "declare it and bind it to the dead-letter exchange, or take it out of the setting",
            name,
        )
        return 0
    _troubles.ends(name, "the intake queue %r is there now", name)
    if limit < 1 or not waiting:
        return 0
    if not spool.database_works():
        return None
    with rows.several():
        return _bring_in(app, broker, name, limit)


def _bring_in(app: Celery, broker: Reader, name: str, limit: int) -> int | None:
    count = 0
    for message in broker.messages(name):
        death = death_of(app, message, name)
        try:
            rows.write(death, late=True)
            count += 1
        except rows.DatabaseDownError:
            message.requeue()
            return None
        except rows.RowRefusedError as exc:
            if not spool.set_aside(death, exc):
                message.requeue()
                return count
        message.ack()
        if count >= limit:
            break
    return count


def death_of(
    app: Celery, message: Message, intake: str, *, known_from: str = "which TASKKIT['INTAKE_QUEUES'] names"
) -> Death:
    """Describe the death of a dead-lettered message, with the message as it was before.

    ``known_from`` says of the queue ``intake`` why what is in it is dead, where the broker does not.

    Its own limit on the time in a queue (``expiration``) is gone: with it, the broker would drop it again.
    """
    entry = _entry(app, message)
    if entry is None:
        envelope = Envelope.from_message(message, app, queue=intake)
        reason, cause = Reason.BROKER, ""
        sentence = f"It was in queue {intake!r}, {known_from}."
    else:
        keys = entry.get("routing-keys")
        key = keys[0] if isinstance(keys, list) and keys else ""
        queue, cause = str(entry.get("queue") or ""), str(entry.get("reason") or "")
        raw = (message.body, message.content_type, message.content_encoding, message.headers, queue)
        delivery = {"exchange": entry.get("exchange"), "routing_key": key}
        envelope = Envelope.of(app, raw, message.properties, delivery)
        reason = _REASONS.get(cause, Reason.BROKER)
        sentence = f"RabbitMQ dead-lettered it from queue {queue!r}: {cause}"
    return Death(
        envelope=envelope,
        task_name=envelope.task_name,
        reason=reason,
        died_at=_time_of(entry),
        exception_message=sentence,
        fingerprint=fingerprint(envelope.task_name, f"{reason.value} {cause}", None),
        release="",  # not known here; the one that is running now may be another
    )


def _entry(app: Celery, message: Message) -> Mapping[str, Any] | None:
    """Return the entry of ``x-death`` that tells where the message died; None if the broker wrote none.

    The latest comes first. It is not always the one: Celery's delayed delivery leaves entries of the queues in which a
    message waited for its time, and a project may let dead messages wait in a queue before they reach the intake.
    """
    deaths = (message.headers or {}).get("x-death")
    entries: list[Mapping[str, Any]] = []
    if isinstance(deaths, list):
        entries = [entry for entry in deaths if isinstance(entry, Mapping)]
    queues = app.amqp.queues
    known = (entry for entry in entries if entry.get("queue") in queues)
    others = (entry for entry in entries if not _DELAY_QUEUE.search(str(entry.get("queue") or "")))
    return next(known, None) or next(others, None)


def _time_of(entry: Mapping[str, Any] | None) -> datetime:
    when = (entry or {}).get("time")
    if not isinstance(when, datetime):
        return timezone.now()
    if timezone.is_naive(when):
        when = when.replace(tzinfo=utc_zone.utc)
    return when if django_settings.USE_TZ else timezone.make_naive(when)
