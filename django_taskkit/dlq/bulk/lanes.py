"""Fast lanes: many messages to a broker in one round trip, and its answer for each of them.

A lane gets its messages through kombu's own producer, so they are the same as if they were published one by one; only
the last step, handing them to the transport, is done for all together.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from amqp import Channel as AmqpChannel
from amqp import spec
from amqp.exceptions import FrameSyntaxError
from amqp.method_framing import frame_writer
from amqp.serialization import dumps as amqp_dumps
from kombu.utils.json import JSONEncoder

from django_taskkit.dlq.bulk.amqp_tables import QuickMessage

WRITE_AT_ONCE = 65_536
"""Bytes."""

_encode = JSONEncoder().encode  # what kombu's ``dumps`` makes anew for each message


class Job(NamedTuple):
    """One message: its place in the chunk, its queue, and what publishes it with the producer that it is given."""

    place: int
    queue: str
    hand_over: Callable[[Any], object]


@dataclass
class Answers:
    """What became of the messages; those named nowhere were taken."""

    no_queue: set[int] = field(default_factory=set)
    nacked: set[int] = field(default_factory=set)
    unsent: set[int] = field(default_factory=set)
    """None of these arrived; one by one, each can find out why."""
    unknown: set[int] = field(default_factory=set)
    """These may have arrived."""
    failure: Exception | None = None
    """Why they are unknown."""


class Lane(Protocol):
    def __call__(self, jobs: Sequence[Job], producer_class: Any, timeout: float) -> Callable[[], Answers]:
        """Begin to send what ``jobs`` publish; the end of it, and the broker's answers, come of what is returned.

        It waits at most ``timeout`` seconds for a broker that says nothing. What could not be begun raises.
        """


class _Collecting:
    """The channel of a producer that hands its messages to us."""

    def __init__(self, channel: Any, take: Callable[..., object]) -> None:
        self.prepare_message = channel.prepare_message
        self.connection = channel.connection
        self.basic_publish = take


def lane_of(connection: Any) -> Lane | None:
    """Return the fast lane of a kombu connection, which gets connected; None if its transport has none."""
    channel = connection.default_channel
    if isinstance(channel, AmqpChannel):
        return partial(through_amqp, connection)
    if connection.transport.driver_type == "redis" and _puts_like_kombu(channel):
        return partial(through_redis, channel)
    return None


def _puts_like_kombu(channel: Any) -> bool:
    """Say whether we know how this channel puts a message, and that its client does so once."""
    from kombu.transport.redis import Channel

    from django_taskkit.transports.redis import AtomicFetch

    known = type(channel)._put in (Channel._put, AtomicFetch._put)
    options = channel.pool.connection_kwargs
    tries_again = any(options.get(name) for name in ("retry_on_timeout", "retry_on_error", "retry"))
    return known and not tries_again


def through_redis(channel: Any, jobs: Sequence[Job], producer_class: Any, timeout: float) -> Callable[[], Answers]:
    """Push all messages of a queue and priority in one command, which Redis takes as a whole or not at all."""
    answers = Answers()
    pushes: dict[tuple[str, str], list[tuple[int, str]]] = {}
    expiring = getattr(channel, "_expires", None) or ()
    at: Job

    def take(message: dict[str, Any], exchange: str, routing_key: str, **options: Any) -> None:
        channel._inplace_augment_message(message, exchange, routing_key)
        key = channel._q_for_pri(routing_key, channel._get_message_priority(message, reverse=False))
        pushes.setdefault((routing_key, key), []).append((at.place, _encode(message)))

    producer: Any = producer_class(_Collecting(channel, take), auto_declare=False)
    for at in jobs:
        if at.queue in expiring:  # each message of such a queue prolongs its life
            answers.unsent.add(at.place)
            continue
        try:
            at.hand_over(producer)
        except Exception:
            answers.unsent.add(at.place)
    return partial(_push, channel, pushes, answers)


def _push(channel: Any, pushes: dict[tuple[str, str], list[tuple[int, str]]], answers: Answers) -> Answers:
    if not pushes:
        return answers
    try:
        with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
            for (_queue, key), messages in pushes.items():
                pipe.lpush(key, *[text for _index, text in messages])
            _ring_bells(channel, pipe, {queue for queue, _key in pushes})
            results = pipe.execute(raise_on_error=False)
    except Exception as exc:
        answers.failure = exc
        answers.unknown.update(index for messages in pushes.values() for index, _text in messages)
        return answers
    for messages, result in zip(pushes.values(), results, strict=False):
        if isinstance(result, Exception):
            answers.unsent.update(index for index, _text in messages)
    return answers


def _ring_bells(channel: Any, pipe: Any, queues: set[str]) -> None:
    """Wake the consumers of our own transport; without it they look by themselves after a second."""
    from django_taskkit.transports.redis import BELL_LIFE, AtomicFetch
    from django_taskkit.transports.redis_scripts import ONLY_RING

    if isinstance(channel, AtomicFetch):
        for queue in queues:
            pipe.eval(ONLY_RING, 1, channel._prefixed(channel._bell(queue)), BELL_LIFE)


def through_amqp(connection: Any, jobs: Sequence[Job], producer_class: Any, timeout: float) -> Callable[[], Answers]:
    """Publish all messages, and then wait for the confirms of all of them; the broker confirms many at a time."""
    answers = Answers()
    # A channel of its own: delivery tags count from 1, and no other message is among them.
    channel = connection.channel()
    channel.confirm_select()
    confirms = _Confirms(channel, answers)
    collecting = _Collecting(channel, confirms.publish)
    collecting.prepare_message = partial(channel.prepare_message, _Message=QuickMessage)
    producer: Any = producer_class(collecting, auto_declare=False)
    try:
        for job in jobs:
            confirms.index = job.place
            try:
                job.hand_over(producer)
            except (OSError, *connection.connection_errors) as exc:
                if not isinstance(exc, FrameSyntaxError):  # says that AMQP has no such header; nothing was written
                    raise
                answers.unsent.add(job.place)
            except connection.channel_errors:
                raise
            except Exception:
                answers.unsent.add(job.place)
        confirms.flush()
    except Exception as exc:
        answers.failure = exc
    return partial(_confirmed, connection, channel, confirms, jobs, answers, timeout)


def _confirmed(
    connection: Any, channel: Any, confirms: _Confirms, jobs: Sequence[Job], answers: Answers, timeout: float
) -> Answers:
    try:
        if answers.failure is None:
            confirms.wait(connection, timeout)
    except Exception as exc:
        answers.failure = exc
    finally:
        with contextlib.suppress(Exception):
            channel.close()
    if answers.failure is not None:
        answers.unknown.update(confirms.unsettled)
        answers.unknown.update(job.place for job in jobs if job.place not in confirms.seen)
        answers.unknown -= answers.unsent
    return answers


class _Confirms:
    """Which messages of a channel wait for the broker's answer."""

    def __init__(self, channel: Any, answers: Answers) -> None:
        self._writer = _Writer(channel)
        self._answers = answers
        self._last_tag = 0
        self._waiting: dict[int, int] = {}
        self._places: dict[Any, list[int]] = {}
        self.index = -1
        """Whose message comes next."""
        self.seen: set[int] = set()
        for name, receiver in (("ack", self._on_ack), ("nack", self._on_nack), ("return", self._on_return)):
            channel.events[f"basic_{name}"].add(receiver)

    @property
    def unsettled(self) -> Iterable[int]:
        return self._waiting.values()

    def publish(self, message: Any, exchange: str, routing_key: str, mandatory: bool, **options: Any) -> None:
        self._writer.write_message(message, exchange, routing_key, mandatory)
        self._last_tag += 1
        self._waiting[self._last_tag] = self.index
        self.seen.add(self.index)
        self._places.setdefault(_identity(routing_key, message), []).append(self.index)

    def flush(self) -> None:
        self._writer.flush()

    def wait(self, connection: Any, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        waiting = len(self._waiting)
        while self._waiting:
            connection.drain_events(timeout=max(0.001, deadline - time.monotonic()))
            if len(self._waiting) < waiting:
                waiting, deadline = len(self._waiting), time.monotonic() + timeout

    def _settle(self, tag: int, multiple: bool) -> list[int]:
        if not multiple:
            return [self._waiting.pop(tag)] if tag in self._waiting else []
        # Tags were given out in order, and a dictionary keeps it.
        tags: list[int] = []
        for waiting in self._waiting:
            if tag and waiting > tag:
                break
            tags.append(waiting)
        return [self._waiting.pop(waiting) for waiting in tags]

    def _on_ack(self, tag: int, multiple: bool) -> None:
        self._settle(tag, multiple)

    def _on_nack(self, tag: int, multiple: bool) -> None:
        self._answers.nacked.update(self._settle(tag, multiple))

    def _on_return(self, exception: Exception, exchange: str, routing_key: str, message: Any) -> None:
        # It comes before the confirm of its message, and has no tag.
        if places := self._places.get(_identity(routing_key, message)):
            self._answers.no_queue.add(places.pop(0))


class _Writer:
    """Writes many messages to the socket at once, by py-amqp's own means.

    It would write and flush each of them, and RabbitMQ would confirm each of them alone.
    """

    def __init__(self, channel: Any) -> None:
        self._channel_id = channel.channel_id
        self._transport = channel.connection.transport
        self._frame = frame_writer(channel.connection, self)  # which takes ``write`` of what it is given
        self._frames: list[bytes] = []
        self._size = 0
        self._arguments: dict[tuple[str, str, bool], bytes] = {}

    def write_message(self, message: Any, exchange: str, routing_key: str, mandatory: bool) -> None:
        target = (exchange, routing_key, mandatory)
        if target not in self._arguments:
            self._arguments[target] = amqp_dumps("Bssbb", (0, *target, False))
        self._frame(1, self._channel_id, spec.Basic.Publish, self._arguments[target], message)
        if self._size >= WRITE_AT_ONCE:
            self.flush()

    def write(self, frame: Any) -> None:
        self._frames.append(bytes(frame))  # a view of a buffer that is used again
        self._size += len(frame)

    def flush(self) -> None:
        frames, self._frames, self._size = self._frames, [], 0
        if frames:
            self._transport.write(b"".join(frames))


def _identity(routing_key: str, message: Any) -> Any:
    properties = message.properties
    headers = properties.get("application_headers") or {}
    return routing_key, headers.get("id") or properties.get("correlation_id")
