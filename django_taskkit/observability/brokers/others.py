"""Queues of the other transports: in memory, and whatever kombu can count (SQL, MongoDB, Amazon SQS, ...)."""

from __future__ import annotations

from itertools import islice
from typing import Any

from celery import Celery

from django_taskkit.observability.brokers.ages import age_by, oldest_of
from django_taskkit.observability.queues import QueueState

LOOK_FURTHER = 20
"""Messages in memory that are looked at before the age is not known."""


def look(app: Celery, connection: Any, names: list[str]) -> list[QueueState]:
    """Ask the channel for the size of each queue, as kombu itself does."""
    channel, kind = connection.channel(), str(connection.transport.driver_type)
    if kind == "memory":
        return [_in_memory(app, channel, name) for name in names]
    return [_counted(channel, kind, name) for name in names]


def _in_memory(app: Celery, channel: Any, name: str) -> QueueState:
    queue = channel.queues.get(name)  # asking for its size would make it
    if queue is None:
        return QueueState(name=name, depth=0, oldest=None, consumers=None, kind="memory")
    with queue.mutex:
        depth, waiting = len(queue.queue), list(islice(queue.queue, LOOK_FURTHER))
    return QueueState(
        name=name,
        depth=depth,
        oldest=oldest_of(age_by(app, message.get("headers")) for message in waiting),
        consumers=None,
        kind="memory",
    )


def _counted(channel: Any, kind: str, name: str) -> QueueState:
    # Amazon's number is an estimate, and its age of the oldest message is to be had from CloudWatch alone.
    try:
        depth = int(channel._size(name))
    except Exception as exc:  # each transport has errors of its own; a queue that is not there is one
        return QueueState(
            name=name, depth=None, oldest=None, consumers=None, kind=kind, note=f"{type(exc).__name__}: {exc}"
        )
    return QueueState(name=name, depth=depth, oldest=None, consumers=None, kind=kind, note="ages are not told")
