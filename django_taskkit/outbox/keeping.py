"""Write a message into the outbox, in the transaction that its sender is in."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import datetime, timedelta
from typing import Any

from celery import Celery
from django.db import DatabaseError, InterfaceError, OperationalError, connections, router, transaction
from django.utils import timezone
from kombu import Exchange, Queue
from kombu.serialization import dumps

from django_taskkit.dlq.death import message_columns
from django_taskkit.dlq.durable import NoConnectionError, durable, forget_connection, is_pooled
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.envelope import Envelope
from django_taskkit.origin import origin_of
from django_taskkit.outbox.delays import seconds_until
from django_taskkit.outbox.event_loop import outside_event_loop
from django_taskkit.outbox.model import OutboxMessage, OutboxReason
from django_taskkit.running import is_in_worker, running_under

logger = logging.getLogger("django_taskkit")

WRITE_TIMEOUT = 30.0
"""Seconds that one message may keep its sender waiting for the database, where no transaction of its own is open."""

NOT_PROPERTIES = frozenset(
    {
        "compression",
        "confirm_timeout",
        "content_encoding",
        "content_type",
        "declare",
        "exchange",
        "headers",
        "immediate",
        "mandatory",
        "retry",
        "retry_policy",
        "routing_key",
        "serializer",
        "timeout",
    }
)
"""What ``Producer.publish`` takes for itself; all else are properties of the message."""


def keep(
    app: Celery,
    task_name: str,
    body: Any,
    options: Mapping[str, Any],
    reason: OutboxReason,
    *,
    until_due: bool = False,
    error: BaseException | None = None,
    why: str = "",
) -> None:
    """Write the message that ``Producer.publish(body, **options)`` would send into the outbox.

    With ``until_due`` it stays there until its ETA. It is written in the transaction that is open in this thread,
    behind a savepoint: what goes wrong here leaves that transaction as it was. Only what a task sends under its own
    id, a retry say, is no part of its data: it is committed at once, since the exception by which the task ends rolls
    its transaction back.

    Raises:
        DatabaseError: and whatever else the database raises; nothing was written then.
        kombu.exceptions.EncodeError: the arguments, or what is in the headers, can't be serialised.
    """
    envelope = envelope_of(app, body, options)
    for part in (envelope.headers, envelope.properties):
        dumps(part, "json")  # as on the way to the broker; the table would take it as text
    due_at: datetime | None = None
    seconds = seconds_until(eta_of(body, options), app)
    if until_due and seconds > 0:
        due_at = timezone.now() + timedelta(seconds=seconds)
    columns: dict[str, Any] = {
        "task_id": bounded(envelope.task_id),
        "task_name": bounded(task_name),
        "reason": reason.value,
        "created_at": timezone.now(),
        "due_at": due_at,
        "last_error": f"{type(error).__name__}: {storable(str(error))}"[:1000] if error else storable(why)[:1000],
        **message_columns(envelope),
    }
    apart = running_under(envelope.task_id) is not None
    outside_event_loop(lambda: _insert(columns, apart=apart))
    logger.log(
        logging.WARNING if error else logging.DEBUG,
        "task %s[%s] waits in the outbox (%s)%s",
        task_name,
        envelope.task_id,
        reason.value,
        f": {error!r}" if error else "",
    )


def envelope_of(app: Celery, body: Any, options: Mapping[str, Any]) -> Envelope:
    """Return the message that ``Producer.publish(body, **options)`` would send.

    It is never compressed, and the detour through the exchanges of native delayed delivery is taken out.
    """
    content_type, content_encoding, payload = dumps(body, options.get("serializer"))
    declared = next((entity.name for entity in options.get("declare") or () if isinstance(entity, Queue)), None)
    delivery = {
        "exchange": exchange_name(options),
        "routing_key": options.get("routing_key") or "",
        "queue": declared,
    }
    exchange, routing_key, queue = origin_of(app, delivery)
    properties = {
        name: value.name if isinstance(value, (Queue, Exchange)) else value
        for name, value in options.items()
        if name not in NOT_PROPERTIES and value is not None
    }
    return Envelope(
        body=payload.encode(content_encoding or "utf-8") if isinstance(payload, str) else bytes(payload),
        content_type=content_type,
        content_encoding=content_encoding,
        # kombu notes the compression here when it publishes, also if that fails.
        headers={name: value for name, value in (options.get("headers") or {}).items() if name != "compression"},
        properties=properties,
        exchange=exchange,
        routing_key=routing_key,
        queue=queue,
    )


def exchange_name(options: Mapping[str, Any]) -> str:
    """Return the name of the exchange that ``Producer.publish(**options)`` would send to."""
    exchange = options.get("exchange") or ""
    return exchange.name if isinstance(exchange, Exchange) else str(exchange)


def eta_of(body: Any, options: Mapping[str, Any]) -> Any:
    """Return the ETA of a message of either of Celery's protocols."""
    headers = options.get("headers") or {}
    return headers.get("eta") or (body.get("eta") if isinstance(body, dict) else None)


def is_in_transaction() -> bool:
    """Say whether a message that is kept now is part of a transaction of its sender's."""
    connection = connections[router.db_for_write(OutboxMessage)]
    if connection.in_atomic_block:
        return True
    # Whoever turned autocommit off will commit; a worker closes the connection instead.
    return connection.connection is not None and not connection.autocommit and not is_in_worker()


def _insert(columns: dict[str, Any], *, apart: bool) -> None:
    using = router.db_for_write(OutboxMessage)
    for last_try in (False, True):
        try:
            with _committing(using, apart=apart), transaction.atomic(using=using):
                OutboxMessage.objects.using(using).create(**columns)
            if not is_pooled(connections[using]):
                with suppress(Exception):
                    connections[using].ensure_connection()  # the next message then needs none of its own
            return
        except NoConnectionError as exc:
            raise OperationalError(str(exc)) from exc
        except (DatabaseError, InterfaceError):
            # Outside a transaction it may be a connection that went stale meanwhile.
            if last_try or connections[using].in_atomic_block:
                raise
            forget_connection(using)


def _committing(using: str, *, apart: bool) -> AbstractContextManager[None]:
    """Return a block whose row is as durable as its sender may expect, and that ends when the database says nothing."""
    return nullcontext() if is_in_transaction() and not apart else durable(using, WRITE_TIMEOUT)
