"""Publish a message that was never published before, as its sender would have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kombu import Queue
from kombu.common import Broadcast, maybe_declare
from kombu.exceptions import OperationalError

from django_taskkit.dlq.publisher import BrokerUnreachableError, Publisher
from django_taskkit.dlq.text import storable
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import PublishError
from django_taskkit.outbox.delays import seconds_until


class FirstPublisher(Publisher):
    """Sends through the exchange that the sender named, which may hand the message to several queues.

    A requeue goes straight to the queue that the message came from; a first publication has been nowhere yet.
    """

    def send(self, envelope: Envelope) -> None:
        """Publish ``envelope``; its ETA is left to a broker that delays natively.

        Raises:
            PublishError: as :meth:`Publisher.publish`.
        """
        countdown = seconds_until(envelope.headers.get("eta"), self.app)
        queues = self.app.amqp.queues
        known = envelope.queue and (envelope.queue in queues or self.app.conf.task_create_missing_queues)
        if not known:
            self.publish(replace(envelope, queue=""), countdown=countdown)
            return
        queue = queues[envelope.queue]
        if not envelope.exchange or (countdown >= 1 and self._delays_natively(queue)):
            self.publish(envelope, queue=envelope.queue, countdown=countdown)
            return
        if not isinstance(queue, Broadcast):
            self._declare(queue)
        self.publish(replace(envelope, queue=""))

    def is_reachable(self) -> bool:
        """Say whether the broker takes a new connection, which is then the one that is used."""
        try:
            self.renew()
            self._connection.ensure_connection(max_retries=0)
        except Exception:
            return False
        return True

    def renew(self) -> None:
        """Go on with a new connection; a refusal may have closed the channel of this one."""
        self.__exit__(None, None, None)
        self.__enter__()

    def _declare(self, queue: Queue) -> None:
        connection: Any = self._connection
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            maybe_declare(queue, connection.default_channel)
        except Exception as exc:
            away = isinstance(exc, (OSError, OperationalError, *connection.connection_errors))
            kind = BrokerUnreachableError if away or not connection.connected else PublishError
            raise kind(f"the queue {queue.name!r} can't be declared: {storable(str(exc))}") from exc
