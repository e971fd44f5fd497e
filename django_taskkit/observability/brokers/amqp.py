"""Queues on RabbitMQ, by AMQP alone, which every user may speak who may read the queue."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from celery import Celery

from django_taskkit.observability.queues import QueueState

MISSING = "missing"
NOT_FOUND = 404
AGE_NOT_TOLD = "RabbitMQ tells no age without marking the message as redelivered"


def look(app: Celery, connection: Any, names: list[str]) -> list[QueueState]:
    """Declare each queue passively, which makes nothing, and says how many messages are ready and who reads.

    No message is looked at: taking one and giving it back marks it as redelivered, and a quorum queue counts that
    towards its delivery limit.
    """
    channel, found = connection.channel(), []
    for name in names:
        try:
            declared = channel.queue_declare(name, passive=True)
        except connection.channel_errors as exc:
            # The broker has closed the channel. It may also refuse: to a user without rights, or of an exclusive queue.
            is_missing = getattr(exc, "code", None) == NOT_FOUND
            kind = MISSING if is_missing else kind_of(app, name)
            note = "the broker has no such queue" if is_missing else str(exc)
            found.append(QueueState(name=name, depth=None, oldest=None, consumers=None, kind=kind, note=note))
            with suppress(Exception):
                channel.close()
            channel = connection.channel()
        else:
            found.append(
                QueueState(
                    name=name,
                    depth=int(declared.message_count),
                    oldest=None,
                    consumers=int(declared.consumer_count),
                    kind=kind_of(app, name),
                    note=AGE_NOT_TOLD if declared.message_count else "",
                )
            )
    return found


def kind_of(app: Celery, name: str) -> str:
    """Return the type that the project declares the queue with; the broker doesn't tell it over AMQP."""
    queues = app.amqp.queues
    arguments = (queues[name].queue_arguments if name in queues else None) or {}
    declared = arguments.get("x-queue-type") or (app.conf.get("task_default_queue_type") if name in queues else None)
    return str(declared or "classic")
