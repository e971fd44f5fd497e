"""Hand many envelopes to the broker at once, and know for each of them whether it was taken.

One round trip for many messages is what makes a bulk requeue fast. Whatever the fast lanes don't cover (exchanges,
delays that the broker holds, other transports, odd messages) takes the way of a single message.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from django.utils.translation import gettext as _
from kombu import Queue
from kombu.common import maybe_declare

from django_taskkit.dlq import publisher
from django_taskkit.dlq.bulk.lanes import Job, Lane, lane_of
from django_taskkit.dlq.publisher import BrokerUnreachableError, Publisher
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import PublishError

AT_ONCE = 2000
"""Messages in one round trip; more gains little, and a crash sends at most so many twice."""

FEW_AT_ONCE = 20
"""Where each message takes a round trip of its own: whoever waits for one of the rows waits for all of these."""

LARGE = 256_000
"""Bytes of a body from which on a message goes alone: a broker's limit on size would hit its neighbours as well."""

PLAIN_PROPERTIES = frozenset(
    {"correlation_id", "delivery_mode", "message_id", "priority", "reply_to", "timestamp", "type"}
)
"""What a message in a fast lane may carry. At a ``user_id`` that is not ours RabbitMQ closes the channel."""


class BulkPublisher(Publisher):
    """Publishes many messages in one round trip where the transport can."""

    _lane: Lane | None = None

    def __enter__(self) -> BulkPublisher:
        super().__enter__()
        return self

    def connect(self) -> None:
        super().connect()
        with self._telling_what_failed():
            self._lane = lane_of(self._connection)

    @property
    def at_once(self) -> int:
        """How many messages are best given to :meth:`publish_many`; known once it is connected."""
        return AT_ONCE if self._lane else FEW_AT_ONCE

    def publish_many(
        self,
        envelopes: Sequence[Envelope],
        queue: str | Queue | None = None,
        countdown: float | None = None,
        *,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> list[PublishError | None]:
        """Publish ``envelopes`` as :meth:`publish` does; return for each of them None, or why it was not taken.

        ``meanwhile`` is called once: before anything is sent, or while a broker that confirms is at work. What it
        raises is raised; messages may be under way by then.

        Never raises for a message, and one that is refused doesn't keep the others from being sent. With a
        :class:`BrokerUnreachableError` the connection broke, and nothing more was sent; messages that were under way
        may have arrived.
        """
        chunk = _Chunk(envelopes, queue, countdown, meanwhile)
        alone: list[int] = []
        in_lane: dict[str, tuple[Queue | None, list[int]]] = {}
        known: dict[tuple[str, str, str], tuple[Queue | None, str, str]] = {}
        for index, envelope in enumerate(envelopes):
            origin = envelope.queue, envelope.exchange, envelope.routing_key
            try:
                if origin not in known:
                    known[origin] = self._address(envelope, queue, countdown)
            except PublishError as exc:
                chunk.refuse(index, exc)
                continue
            target, exchange, key = known[origin]
            if exchange or not key or self._lane is None or not _is_plain(envelope):
                alone.append(index)
            else:  # over the default exchange, where the routing key is the queue
                in_lane.setdefault(key, (target, []))[1].append(index)
        jobs: list[Job] = []
        try:
            for name, (target, indices) in in_lane.items():
                if target is None or self._is_there(target, queue):
                    jobs += [
                        Job(at, name, partial(self._pass_on, envelope=envelopes[at], queue=name)) for at in indices
                    ]
                else:
                    alone += indices
            alone += self._through_lane(jobs, chunk)
            chunk.use_the_time()
            for index in sorted(alone):
                self._send_alone(index, chunk)
        except BrokerUnreachableError as exc:
            for index in list(chunk.waiting):
                chunk.refuse(index, exc)
        chunk.use_the_time()
        return [chunk.refusals.get(index) for index in range(len(envelopes))]

    def _pass_on(self, producer: Any, envelope: Envelope, queue: str) -> None:
        self._hand_over(producer, envelope, "", queue, [])

    def _is_there(self, target: Queue, queue: str | Queue | None) -> bool:
        """Make the queue; where the broker refuses that, each message finds out why by itself."""
        connection: Any = self._connection
        try:
            with self._telling_what_failed():
                connection.ensure_connection(max_retries=1, interval_start=0.1)
                if target is not queue or self._lacks(target):
                    maybe_declare(target, connection.default_channel)
        except BrokerUnreachableError:
            raise
        except PublishError:
            return False
        return True

    def _through_lane(self, jobs: Sequence[Job], chunk: _Chunk) -> Iterable[int]:
        """Send ``jobs``; return those that are to be tried alone.

        Raises:
            BrokerUnreachableError: the connection broke.
        """
        if not jobs or self._lane is None:
            return ()
        queues = {job.place: job.queue for job in jobs}
        try:
            with self._telling_what_failed():
                finish = self._lane(jobs, self.app.amqp.Producer, publisher.ANSWER_TIMEOUT)
        except BrokerUnreachableError:
            raise
        except PublishError:  # no channel, so nothing was sent
            return queues
        chunk.use_the_time()
        answers = finish()
        for index in answers.no_queue:
            chunk.refuse(index, self._no_queue(queues[index]))
        for index in answers.nacked:
            chunk.refuse(index, PublishError(_("the broker refused the message: %s") % "basic.nack"))
        chunk.waiting -= queues.keys() - answers.unsent - answers.unknown
        if answers.failure is not None:
            try:
                with self._telling_what_failed():
                    raise answers.failure
            except BrokerUnreachableError:
                raise
            except PublishError as exc:
                for index in answers.unknown:
                    chunk.refuse(index, exc)  # not tried again: it may have arrived
        return answers.unsent

    def _send_alone(self, index: int, chunk: _Chunk) -> None:
        try:
            self.publish(chunk.envelopes[index], chunk.queue, chunk.countdown)
        except BrokerUnreachableError:
            raise
        except PublishError as exc:
            chunk.refuse(index, exc)
        else:
            chunk.waiting.discard(index)


class _Chunk:
    """Messages that are published together, and what is known of them by now."""

    def __init__(
        self,
        envelopes: Sequence[Envelope],
        queue: str | Queue | None,
        countdown: float | None,
        meanwhile: Callable[[], object],
    ) -> None:
        self.envelopes = envelopes
        self.queue = queue
        self.countdown = countdown
        self.refusals: dict[int, PublishError] = {}
        self.waiting = set(range(len(envelopes)))
        """Those of which it is not known yet."""
        self._meanwhile: Callable[[], object] | None = meanwhile

    def use_the_time(self) -> None:
        """Do what the caller has to do meanwhile, unless it is done."""
        if self._meanwhile is not None:
            meanwhile, self._meanwhile = self._meanwhile, None
            meanwhile()

    def refuse(self, index: int, why: PublishError) -> None:
        self.refusals[index] = why
        self.waiting.discard(index)


def _is_plain(envelope: Envelope) -> bool:
    return len(envelope.body) < LARGE and PLAIN_PROPERTIES.issuperset(envelope.properties)
