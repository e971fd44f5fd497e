"""What a probe leaves on the broker and in the result backend is deleted here."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from celery import Celery
from kombu.transport import virtual

from django_taskkit.dlq.publisher import broker_connection

logger = logging.getLogger("django_taskkit")


def queue_of(app: Celery, name: str) -> Any:
    """Return the queue that ``app``'s worker declares when it is told to read ``name``."""
    queues = app.amqp.queues
    return queues[name] if name in queues else queues.new_missing(name)


def empty_queue(app: Celery, name: str) -> None:
    """Delete the messages of a queue that somebody else has made."""
    try:
        with broker_connection(app) as connection:
            channel: Any = connection.default_channel
            channel.queue_purge(name)
    except Exception as exc:
        logger.warning("messages of the probe may be left in the queue %r: %s", name, exc)


def delete_queue(app: Celery, name: str) -> None:
    """Delete a queue that was made for a probe, with its messages, its bindings, and its exchange."""
    try:
        with broker_connection(app) as connection:
            channel: Any = connection.default_channel
            queue = queue_of(app, name)
            # kombu's own transports delete nothing but what this very connection has declared.
            queue(channel).declare()
            channel.queue_delete(name)
            if queue.exchange is not None and queue.exchange.name == name:
                channel.exchange_delete(name)
    except Exception as exc:
        logger.warning("the probe's queue %r may be left on the broker: %s", name, exc)


def delete_mailbox(app: Celery, hostname: str) -> None:
    """Delete the queue for orders to a worker that may have been killed; RabbitMQ does so by itself."""
    try:
        with broker_connection(app) as connection:
            channel: Any = connection.default_channel
            if isinstance(channel, virtual.Channel):
                control: Any = app.control
                queue = control.mailbox.get_queue(hostname)
                queue(channel).declare()
                channel.queue_delete(queue.name)
    except Exception as exc:
        logger.warning("the queue for orders to the probe's worker may be left on the broker: %s", exc)


def forget_results(app: Celery, task_ids: Iterable[str]) -> None:
    """Delete the results of these tasks, where the result backend can; one that is down is asked only once."""
    backend: Any = app.backend
    for task_id in task_ids:
        try:
            # A task that stored no result has none to delete.
            with suppress(FileNotFoundError):
                backend.forget(task_id)
        except NotImplementedError:
            return
        except Exception as exc:
            logger.warning("results of the probe may be left in the result backend until they expire: %s", exc)
            return
