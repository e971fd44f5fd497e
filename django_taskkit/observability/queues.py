"""What waits in the queues, as the broker says: how much, since when, and who reads it.

Messages that a worker has taken and not acknowledged do not wait any more and are not counted, and neither is what
waits for its time: in the outbox, in the queues of Celery's native delayed delivery, or in a worker.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from celery import Celery
from kombu.exceptions import OperationalError

from django_taskkit.exceptions import BrokerUnreachableError
from django_taskkit.observability.deadline import within


@dataclass(frozen=True, kw_only=True)
class QueueState:
    """One queue at one moment."""

    name: str

    depth: int | None
    """Messages that wait for a worker, those of all priorities; None if the broker doesn't tell, see ``note``."""

    oldest: float | None
    """Seconds for which the oldest message that is due has been waiting: since it was sent, or since its ETA.

    None if nothing is due, or if it can't be known: RabbitMQ shows no message without marking it as redelivered, and
    messages that were sent without this app say nothing. Of a queue whose priorities can't all be read, the oldest of
    those that can.
    """

    consumers: int | None
    """How many consumers read it; None where the broker doesn't know (all but RabbitMQ)."""

    kind: str
    """What it is: ``list`` (Redis), ``classic``, ``quorum`` or ``stream`` (RabbitMQ, as the project declares it),
    ``files``, ``memory``, another transport's name, or ``missing``: RabbitMQ has no such queue."""

    note: str = ""
    """Why something is None that might be known; empty as a rule."""


T = TypeVar("T")
Look = Callable[[Celery, Any, "list[str]"], "list[QueueState]"]


def look(app: Celery, names: Iterable[str], *, timeout: float = 5) -> list[QueueState]:
    """Return the state of each of the queues ``names``, in their order; nothing is taken, made or marked.

    One connection of its own, and one round trip (Redis) or one for each queue (RabbitMQ); of each list only the last
    few messages are read.

    Raises:
        BrokerUnreachableError: no connection, or not all answers after ``timeout`` seconds.
    """
    wanted = list(dict.fromkeys(names))
    if not wanted:
        return []
    return on_broker(app, lambda connection: _look_of(connection)(app, connection, wanted), timeout=timeout)


def on_broker(app: Celery, ask: Callable[[Any], T], *, timeout: float) -> T:
    """Return what ``ask`` returns of a new connection to the broker that workers read from.

    Raises:
        BrokerUnreachableError: no connection, it broke, or no answer after ``timeout`` seconds.
    """

    def connected() -> T:
        driver = app.connection_for_read().transport.driver_type
        connection: Any = app.connection_for_read(connect_timeout=timeout, transport_options=_limits(driver, timeout))
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.1, timeout=timeout)
            return ask(connection)
        except (OSError, OperationalError, *connection.connection_errors, *connection.channel_errors) as exc:
            raise BrokerUnreachableError(f"the broker can't be reached: {exc or type(exc).__name__}") from exc
        finally:
            with suppress(Exception):
                connection.release()

    try:
        return within(timeout, connected, "queues")
    except TimeoutError as exc:
        raise BrokerUnreachableError(f"the broker can't be reached: {exc}") from exc


def _limits(driver: str, timeout: float) -> dict[str, Any]:
    """Return the transport options that end a question which `on_broker` has given up."""
    if driver == "amqp":
        whole = max(1, math.ceil(timeout))
        return {"read_timeout": whole, "write_timeout": whole}
    if driver == "redis":
        return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry_on_timeout": False}
    return {}


def _look_of(connection: Any) -> Look:
    driver = connection.transport.driver_type
    if driver == "amqp":
        from django_taskkit.observability.brokers.amqp import look as found
    elif driver == "redis":
        from django_taskkit.observability.brokers.redis import look as found
    elif driver == "filesystem":
        from django_taskkit.observability.brokers.files import look as found
    else:
        from django_taskkit.observability.brokers.others import look as found
    return found
