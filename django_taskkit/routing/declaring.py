"""Make at RabbitMQ what the lanes need before the first message can go wrong.

A worker declares the queues that it reads, and binds all of the project's to Celery's delayed delivery. The queue of a
lane whose worker has not started yet is not there then: Celery says that delayed delivery will not be available, and a
message with a delay for that lane is dropped when its time has come. The queue for dead messages is read by no worker
at all, so nobody would declare it. So the worker of any lane makes them all.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from celery import Celery, bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu import Exchange, Queue

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.lane import declared_lanes

logger = logging.getLogger("django_taskkit")


def dead_letter_queues(app: Celery) -> list[Queue]:
    """Return the queues into which RabbitMQ puts what is dead in the project's queues, by its default exchange."""
    queues: Mapping[str, Any] = app.amqp.queues
    found: dict[str, Queue] = {}
    for queue in queues.values():
        arguments = queue.queue_arguments or {}
        name = arguments.get("x-dead-letter-routing-key")
        # Another exchange is the project's own business, and so is what is bound to it.
        if name and arguments.get("x-dead-letter-exchange") == "" and name not in queues:
            kind = arguments.get("x-queue-type") or "classic"
            found.setdefault(name, Queue(name, Exchange(""), routing_key=name, queue_arguments={"x-queue-type": kind}))
    return list(found.values())


def declare(app: Celery, connection: Any) -> list[str]:
    """Make the queues of all lanes at RabbitMQ, and that for dead messages; returns the names of what was missing.

    What is there is left as it is, also where it was made with other arguments.
    """
    made = []
    for queue in [*app.amqp.queues.values(), *dead_letter_queues(app)]:
        if _is_there(connection, queue.name):
            continue
        channel = connection.channel()
        try:
            queue(channel).declare()
            made.append(queue.name)
        finally:
            channel.close()
    return made


def _is_there(connection: Any, name: str) -> bool:
    channel = connection.channel()
    try:
        channel.queue_declare(name, passive=True)
    except connection.channel_errors:  # and RabbitMQ has closed the channel
        return False
    channel.close()
    return True


class DeclareLanes(bootsteps.StartStopStep):  # type: ignore[misc,unused-ignore]
    """Declares before the worker reads its queues, and again on every new connection."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, parent: Any) -> bool:
        try:
            return parent.app.connection_for_read().get_transport_cls().driver_type == "amqp" and bool(declared_lanes())
        except ConfigurationError as exc:
            logger.error("the lanes' queues are not declared: %s", exc)
            return False

    def start(self, parent: Any) -> None:
        try:
            declare(parent.app, parent.connection)
        except (OSError, *parent.connection.connection_errors):
            raise  # the worker connects anew
        except Exception as exc:  # it may lack the right to; its own queues it declares once more, and says so
            logger.error("the lanes' queues can't all be declared: %s", exc)


_tasks: Any = Tasks
if DeclareLanes not in _tasks.requires:
    # The order of steps follows from what they require alone.
    _tasks.requires = (*_tasks.requires, DeclareLanes)
