"""Take messages off a queue one at a time, without a consumer, each to be acknowledged when it is safe elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery import Celery
from django.utils.translation import gettext as _
from kombu import Message
from kombu.exceptions import OperationalError

from django_taskkit.dlq.publisher import BrokerUnreachableError, timeouts
from django_taskkit.dlq.text import storable
from django_taskkit.exceptions import NoQueueError


class Reader:
    """What :func:`reader` gives: the queues of one broker, by name."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._channel = connection.channel()

    def size(self, queue: str) -> int:
        """Return how many messages are ready in ``queue``.

        Raises:
            NoQueueError: there is no such queue; only RabbitMQ can tell that from an empty one.
        """
        if self._connection.transport.driver_type != "amqp":
            return int(self._channel._size(queue))
        return int(self._declared(queue).message_count)

    def consumers(self, queue: str) -> int:
        """Return how many consumers read ``queue``, which only RabbitMQ knows.

        Raises:
            NoQueueError: there is no such queue.
        """
        return int(self._declared(queue).consumer_count)

    def _declared(self, queue: str) -> Any:
        channel = self._connection.channel()  # the broker closes the one where a queue is missing
        try:
            # Passive: declaring it with other arguments than its own would be an error, or the wrong queue.
            return channel.queue_declare(queue, passive=True)
        except self._connection.channel_errors as exc:
            if getattr(exc, "code", None) == 404:
                raise NoQueueError(_("the broker has no queue %r") % queue) from exc
            raise

    def messages(self, queue: str) -> Iterator[Message]:
        """Yield what is in ``queue`` now; what is not acknowledged when the reader closes is back in it."""
        while (message := self._channel.basic_get(queue, no_ack=False)) is not None:
            # As kombu.Queue.get does, but for raising what is odd about a message: it is to be kept all the same.
            convert = getattr(self._channel, "message_to_python", None)
            yield convert(message) if convert else message


@contextmanager
def reader(app: Celery) -> Iterator[Reader]:
    """Connect to the broker for the length of the block.

    Raises:
        BrokerUnreachableError: no connection, or it broke within the block.
    """
    driver = app.connection_for_write().transport.driver_type
    connection: Any = app.connection_for_write(transport_options=timeouts(driver))
    try:
        connection.ensure_connection(max_retries=1, interval_start=0.1)
        yield Reader(connection)
    except (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors) as exc:
        raise BrokerUnreachableError(_("the broker can't be reached: %s") % storable(str(exc))) from exc
    finally:
        connection.release()
