"""A broker in memory that belongs to one block of one test.

It is a transport of kombu's, so that messages are encoded, routed, acknowledged and delivered again as with a real one.
What it does not have is a loop that delivers: whoever runs the messages asks for the next one.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from queue import Empty
from typing import Any

from celery.worker.state import revoked
from kombu import Connection
from kombu.transport import virtual
from kombu.utils.json import dumps, loads

HOST = "django-taskkit-test"

REMOTE_CONTROL = ".pidbox"
"""How the exchange is named by which Celery tells its workers what to do."""

DOWN = (111, "Connection refused (broker_down() of django_taskkit.testing)")


@dataclass
class Stored:
    """A message on a queue."""

    queue: str
    number: int
    """Its place in the order of arrival, over all queues."""
    rank: int
    """Its place by priority, lowest first."""
    raw: dict[str, Any]
    task: str
    id: str
    due: datetime | None
    """When a worker would run it; None: at once."""


class Broker:
    """Holds the messages of all queues.

    Args:
        read: returns name, id and due time of a raw message.
        rank: returns the rank of a message on a queue by its priority; lowest is first.
    """

    def __init__(
        self,
        read: Callable[[dict[str, Any]], tuple[str, str, datetime | None]],
        rank: Callable[[str, Any], int],
    ) -> None:
        self.is_down = False
        self._read = read
        self._rank = rank
        self._numbers = itertools.count()
        self._queues: dict[str, list[Stored]] = {}
        self._unacknowledged: dict[str, Stored] = {}
        self._lock = threading.RLock()
        self.transport = type("Transport", (Transport,), {"broker": self, "state_of_broker": virtual.BrokerState()})

    def connect(self, *args: Any, **options: Any) -> Connection:
        """Return a connection to this broker, wherever it was to go."""
        return Connection(HOST, transport=self.transport, transport_options=options.get("transport_options"))

    def refuse_if_down(self) -> None:
        if self.is_down:
            raise ConnectionRefusedError(*DOWN)

    def declare(self, queue: str) -> None:
        with self._lock:
            self._queues.setdefault(queue, [])

    def has(self, queue: str) -> bool:
        return queue in self._queues

    def size(self, queue: str) -> int:
        return len(self._queues.get(queue, ()))

    def put(self, queue: str, raw: dict[str, Any]) -> None:
        raw = loads(dumps(raw))  # the broker's copy: what its sender changes afterwards, it doesn't see
        task, task_id, due = self._read(raw)
        with self._lock:
            rank = self._rank(queue, (raw.get("properties") or {}).get("priority"))
            message = Stored(queue, next(self._numbers), rank, raw, task, task_id, due)
            self._queues.setdefault(queue, []).append(message)

    def take(self, message: Stored) -> None:
        """Hand ``message`` out; it is kept until it is acknowledged."""
        with self._lock:
            self._queues[message.queue].remove(message)
            self._unacknowledged[message.raw["properties"]["delivery_tag"]] = message

    def take_first(self, queue: str) -> dict[str, Any]:
        """Hand out the next message of ``queue``, for those who read it as a program does; Empty if there is none."""
        with self._lock:
            first = min(self._queues.get(queue, ()), key=_place, default=None)
            if first is None:
                raise Empty
            self.take(first)
            return first.raw

    def forget(self, delivery_tag: str) -> None:
        with self._lock:
            self._unacknowledged.pop(delivery_tag, None)

    def put_back(self, delivery_tag: str) -> None:
        """Put a message back where it was; it is delivered again."""
        with self._lock:
            message = self._unacknowledged.pop(delivery_tag, None)
            if message is not None:
                message.raw["redelivered"] = True
                message.raw["properties"]["delivery_info"]["redelivered"] = True  # where tasks look
                self._queues.setdefault(message.queue, []).append(message)

    def drop(self, queue: str) -> int:
        with self._lock:
            return len(self._queues.pop(queue, ()))

    def messages(self) -> list[Stored]:
        """Return what is on the queues, in no order; see :func:`in_turn`."""
        with self._lock:
            return [message for queue in self._queues.values() for message in queue]


def first_in_turn(messages: Iterable[Stored]) -> Stored | None:
    """Return the first of :func:`in_turn`; None if there is none."""
    messages = list(messages)
    if not messages:
        return None
    oldest = min(messages, key=lambda message: message.number)
    return min((message for message in messages if message.queue == oldest.queue), key=_place)


def in_turn(messages: Iterable[Stored]) -> list[Stored]:
    """Return ``messages`` in the order in which one worker takes them.

    Between queues the order of arrival decides, and within a queue its priorities.
    """
    queues: dict[str, list[Stored]] = {}
    for message in messages:
        queues.setdefault(message.queue, []).append(message)
    turns: list[tuple[int, Stored]] = []
    for queue in queues.values():
        arrivals = sorted(message.number for message in queue)
        turns.extend(zip(arrivals, sorted(queue, key=_place), strict=True))
    return [message for _turn, message in sorted(turns, key=lambda turn: turn[0])]


def _obey(command: dict[str, Any]) -> None:
    """Do what a worker is told by remote control, as far as it concerns messages that wait: forget the revoked."""
    if command.get("method") == "revoke":
        ids = command["arguments"]["task_id"]
        revoked.update([ids] if isinstance(ids, str) else ids)


def _place(message: Stored) -> tuple[int, int]:
    return message.rank, message.number


base: Any = virtual  # kombu has no stubs


class Channel(base.Channel):  # type: ignore[misc]
    """Reads and writes the queues of the broker."""

    supports_fanout = True
    do_restore = False

    @property
    def _broker(self) -> Broker:
        broker: Broker = self.connection.broker
        return broker

    def basic_publish(self, *args: Any, **kwargs: Any) -> Any:
        self._broker.refuse_if_down()
        return super().basic_publish(*args, **kwargs)

    def basic_ack(self, delivery_tag: str, multiple: bool = False) -> None:
        super().basic_ack(delivery_tag, multiple=multiple)
        self._broker.forget(delivery_tag)

    def basic_reject(self, delivery_tag: str, requeue: bool = False) -> None:
        super().basic_reject(delivery_tag, requeue=requeue)  # which puts it back, if it is to be
        self._broker.forget(delivery_tag)

    def _restore_at_beginning(self, message: Any) -> None:
        self._broker.put_back(message.delivery_tag)

    _restore = _restore_at_beginning

    def _new_queue(self, queue: str, **kwargs: Any) -> None:
        self._broker.refuse_if_down()
        self._broker.declare(queue)

    def _has_queue(self, queue: str, **kwargs: Any) -> bool:
        return self._broker.has(queue)

    def _get(self, queue: str, timeout: float | None = None) -> dict[str, Any]:
        return self._broker.take_first(queue)

    def _put(self, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        self._broker.put(queue, message)

    def _put_fanout(self, exchange: str, message: dict[str, Any], routing_key: str | None = None, **kw: Any) -> None:
        for queue in sorted(self._lookup(exchange, routing_key)):
            self._broker.put(queue, message)
        if exchange.endswith(REMOTE_CONTROL):
            _obey(loads(self.decode_body(message["body"], message["properties"]["body_encoding"])))

    def _queue_bind(self, *args: Any) -> None:
        pass

    def _size(self, queue: str) -> int:
        return self._broker.size(queue)

    def _delete(self, queue: str, *args: Any, **kwargs: Any) -> None:
        self._broker.drop(queue)

    def _purge(self, queue: str) -> int:
        count = self._broker.drop(queue)
        self._broker.declare(queue)
        return count


class Transport(base.Transport):  # type: ignore[misc]
    """Connects to one :class:`Broker`, which has a subclass of this to itself."""

    Channel = Channel
    broker: Broker
    state_of_broker: Any
    driver_type = "memory"
    driver_name = "django_taskkit.testing"
    connection_errors = (*base.Transport.connection_errors, OSError)
    implements = base.Transport.implements.extend(exchange_type=frozenset(["direct", "topic", "fanout"]))

    def __init__(self, client: Any, **kwargs: Any) -> None:
        super().__init__(client, **kwargs)
        self.state = self.state_of_broker

    def establish_connection(self) -> Any:
        self.broker.refuse_if_down()
        return super().establish_connection()

    def driver_version(self) -> str:
        return "N/A"
