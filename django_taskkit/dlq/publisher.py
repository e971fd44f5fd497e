"""Hand envelopes to the broker, and know that it took them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any

from amqp.exceptions import FrameSyntaxError
from celery import Celery
from celery.utils.quorum_queues import detect_quorum_queues
from django.utils.translation import gettext as _
from kombu import Producer, Queue
from kombu.transport.native_delayed_delivery import MAX_LEVEL, calculate_routing_key, level_name

from django_taskkit.dlq.text import storable
from django_taskkit.envelope import SENT_AT_HEADER, Envelope
from django_taskkit.exceptions import BrokerUnreachableError as BrokerUnreachableError
from django_taskkit.exceptions import NoQueueError, PublishError

#: Seconds to wait for a broker that accepts a connection and then says nothing.
ANSWER_TIMEOUT = 10.0


def timeouts(driver: str) -> dict[str, Any]:
    """Return the transport options that bound the wait for a silent broker, and make it confirm what it takes."""
    if driver == "amqp":
        return {"confirm_publish": True, "read_timeout": ANSWER_TIMEOUT, "write_timeout": ANSWER_TIMEOUT}
    if driver == "redis":
        # The client's own second attempt could send what arrived with the first one.
        waits = {"socket_timeout": ANSWER_TIMEOUT, "socket_connect_timeout": ANSWER_TIMEOUT}
        return {**waits, "retry_on_timeout": False}
    return {}


@contextmanager
def broker_connection(app: Celery) -> Iterator[Any]:
    """Give a connection of its own to ``app``'s broker, on which nobody waits long for an answer.

    Who is interrupted (Ctrl-C) may be in the middle of a conversation. Then the connection is dropped without the
    usual farewell: AMQP would wait for an answer that has been read already, for as long as the broker lives.
    """
    driver = app.connection_for_write().transport.driver_type
    connection: Any = app.connection_for_write(transport_options=timeouts(driver))
    try:
        yield connection
    except Exception:
        raise
    except BaseException:
        connection.collect(ANSWER_TIMEOUT)
        raise
    finally:
        connection.release()


class Publisher:
    """Publishes over one connection of its own, with confirms where the broker gives them.

    Celery's pooled producers may publish without confirms, and RabbitMQ then reports success for messages that
    never arrive. A message that no queue would take is refused as well, instead of vanishing.
    """

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._driver = app.connection_for_write().transport.driver_type
        self._returned: list[Any] = []

    def __enter__(self) -> Publisher:
        self._open = ExitStack()
        self._connection = self._open.enter_context(broker_connection(self.app))
        # Only AMQP hands back what it can't route; the channels of other transports don't know the event.
        on_return = self._on_return if self._driver == "amqp" else None
        self._producer = self.app.amqp.Producer(self._connection, auto_declare=False, on_return=on_return)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._open.__exit__(kind, exc, tb)

    def connect(self) -> None:
        """Connect now rather than at the first message, for callers that hold a lock while they publish.

        Raises:
            BrokerUnreachableError: no connection.
        """
        connection: Any = self._connection
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
        except Exception as exc:
            raise BrokerUnreachableError(_("the broker can't be reached: %s") % storable(str(exc))) from exc

    def publish(self, envelope: Envelope, queue: str | Queue | None = None, countdown: float | None = None) -> None:
        """Put ``envelope`` on ``queue``, by default on the queue that it came from.

        A ``Queue`` is made if the broker has none of its name; one that is there is taken as it is.

        A message goes straight to its queue, since its exchange might copy it to other queues as well. Only where
        the queue's name is unknown it takes the exchange and routing key that it came with.

        ``countdown`` is in seconds. A worker waits for the time in the message's ``eta``; on quorum queues it could not
        do anything else meanwhile, so there the broker itself holds the message, as for Celery's own countdowns.

        Raises:
            NoQueueError: no such queue.
            BrokerUnreachableError: no connection, or it broke; the message may have arrived.
            PublishError: the broker refused the message.
        """
        target, exchange, routing_key = self._address(envelope, queue, countdown)
        self._returned.clear()
        connection: Any = self._connection
        with self._telling_what_failed():
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            declare = [target] if target and (target is not queue or self._lacks(target)) else []
            self._hand_over(self._producer, envelope, exchange, routing_key, declare)
        if self._returned:
            raise self._no_queue(routing_key)

    def _address(
        self, envelope: Envelope, queue: str | Queue | None, countdown: float | None
    ) -> tuple[Queue | None, str, str]:
        """Return the queue, if it is known, and the exchange and routing key that lead there."""
        target = self._queue(queue or envelope.queue, required=queue is not None)
        if target is None:
            return None, envelope.exchange, envelope.routing_key
        if countdown and countdown >= 1 and self._delays_natively(target):
            return target, level_name(MAX_LEVEL), calculate_routing_key(int(countdown), target.routing_key)
        return target, "", target.name

    def _hand_over(
        self, producer: Producer, envelope: Envelope, exchange: str, routing_key: str, declare: list[Queue]
    ) -> None:
        headers = dict(envelope.headers)
        if "id" in headers:  # a task; its time in the queue begins now, however long it has waited elsewhere
            headers[SENT_AT_HEADER] = time.time()
        producer.publish(
            envelope.body,
            exchange=exchange,
            routing_key=routing_key,
            content_type=envelope.content_type,
            content_encoding=envelope.content_encoding,
            headers=headers,
            declare=declare,
            mandatory=True,
            confirm_timeout=ANSWER_TIMEOUT,
            **envelope.properties,
        )

    @contextmanager
    def _telling_what_failed(self) -> Iterator[None]:
        """Turn whatever kombu and its drivers raise into one of our errors."""
        connection: Any = self._connection
        try:
            yield
        except PublishError:
            raise
        except FrameSyntaxError as exc:  # counts as a connection error, and only says that AMQP has no such header
            raise self._refusal(exc) from exc
        except (OSError, *connection.connection_errors) as exc:
            raise BrokerUnreachableError(_("the broker can't be reached: %s") % storable(str(exc))) from exc
        except Exception as exc:
            if isinstance(exc.__cause__, OSError) or not connection.connected:
                raise BrokerUnreachableError(_("the broker can't be reached: %s") % storable(str(exc))) from exc
            raise self._refusal(exc) from exc

    def _refusal(self, exc: Exception) -> PublishError:
        cause = f"{type(exc).__name__}: {storable(str(exc))}"
        return PublishError(_("the broker refused the message: %s") % cause)

    def _no_queue(self, routing_key: str) -> NoQueueError:
        return NoQueueError(_("the broker has no queue for the routing key %r") % routing_key)

    def _lacks(self, queue: Queue) -> bool:
        if self._driver != "amqp":
            return True  # making it again changes nothing
        connection: Any = self._connection
        channel = connection.channel()  # the broker closes the one where a queue is missing
        try:
            channel.queue_declare(queue.name, passive=True)
        except connection.channel_errors:
            return True
        channel.close()
        return False

    def _queue(self, name: str | Queue, *, required: bool) -> Queue | None:
        if isinstance(name, Queue):
            return name
        queues = self.app.amqp.queues
        if name in queues:
            return queues[name]
        if not required:
            return None
        if not self.app.conf.task_create_missing_queues:
            raise NoQueueError(_("there is no queue %r in task_queues; add it or choose another") % name)
        return queues[name]

    def _delays_natively(self, queue: Queue) -> bool:
        direct = queue.exchange is None or queue.exchange.type == "direct"
        return self._driver == "amqp" and not direct and bool(detect_quorum_queues(self.app, "amqp")[0])

    def _on_return(self, exception: Exception, exchange: Any, routing_key: str, message: Any) -> None:
        self._returned.append(exception)
