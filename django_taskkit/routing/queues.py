"""What each broker's queues are declared with, in the plain form that ``task_queues`` takes.

Celery takes ``{name: {"exchange": ..., "exchange_type": ..., "routing_key": ..., "queue_arguments": {...}}}``
(``celery.app.amqp.Queues.add_compat``).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.brokers import RABBITMQ, SQS
from django_taskkit.routing.lane import Lane

QUEUE_TYPES = ("quorum", "classic")

DELIVERY_LIMIT = 20
"""Deliveries after which RabbitMQ gives a message of a quorum queue up, where the lane doesn't say; as from 4.0 on.

Far above ``TASKKIT["DELIVERY_LIMIT"]``: that one counts starts of one message, this one also counts what a worker
took ahead and never began, so that messages beside a poisoned one come near it.
"""

MAX_PRIORITY = 9

_SQS_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|(?=.{1,80}$)[A-Za-z0-9_-]+\.fifo")
"""Amazon's rule; kombu writes others in another way, under which nobody would look for them."""

_AMQP_BYTES = 255
"""The longest name that AMQP can carry."""


def direct(name: str) -> dict[str, Any]:
    """Return a queue as Celery makes it by itself, for brokers that have no more to tell about it."""
    return {"exchange": name, "exchange_type": "direct", "routing_key": name}


def classic(name: str, *, dead: str) -> dict[str, Any]:
    """Return a classic queue of RabbitMQ, with priorities. ``dead`` is the queue for dead messages; empty: none."""
    arguments: dict[str, Any] = {"x-queue-type": "classic", "x-max-priority": MAX_PRIORITY}
    return direct(name) | {"queue_arguments": arguments | _to(dead)}


def quorum(name: str, *, exchange: str, dead: str, delivery_limit: int) -> dict[str, Any]:
    """Return a quorum queue of RabbitMQ on a topic exchange, without which Celery can't delay its messages there."""
    arguments: dict[str, Any] = {"x-queue-type": "quorum", "x-delivery-limit": delivery_limit}
    if dead:
        # RabbitMQ keeps a dead message until the queue for it has taken it, also while there is none.
        arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    return {
        "exchange": exchange,
        "exchange_type": "topic",
        "routing_key": routing_key(name),
        "queue_arguments": arguments | _to(dead),
    }


def _to(dead: str) -> dict[str, Any]:
    # By the default exchange, which is always there: what has not been made can't be missing.
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead} if dead else {}


def routing_key(name: str) -> str:
    """Return the routing key of a queue on a topic exchange: its name, without the dots.

    Celery's delayed delivery binds every queue with ``#.<key>``: with dots, what is delayed for ``shop.slow`` would
    reach a queue ``slow`` as well, of this project or of another one in the same virtual host.
    """
    return re.sub(r"[.*#]", "-", name)


def by_queue(lanes: Mapping[str, Lane]) -> dict[str, list[str]]:
    """Return the names of the lanes that share each queue, by the queue's name, in their order."""
    found: dict[str, list[str]] = {}
    for name, lane in lanes.items():
        found.setdefault(lane.queue or name, []).append(name)
    return found


def refuse_bad_names(kind: str, queues: Iterable[str], *, dead: str, topic: bool) -> None:
    """Raise ConfigurationError for a queue's name that the broker, or a worker's command line, can't take.

    Args:
        kind: of the broker.
        queues: of the lanes.
        dead: the queue for dead messages, which only RabbitMQ has; empty: none.
        topic: whether the queues are on one topic exchange.
    """
    keys: dict[str, str] = {}
    if kind == RABBITMQ and dead:
        _refuse_bad_name(kind, dead)
    for name in queues:
        _refuse_bad_name(kind, name)
        other = keys.setdefault(routing_key(name), name)
        if topic and other != name:
            raise ConfigurationError(
                f"the queues {other!r} and {name!r} would both have the routing key {routing_key(name)!r}, and get "
                "each other's messages; rename one"
            )


def _refuse_bad_name(kind: str, name: str) -> None:
    if not name or not name.isprintable() or "," in name or name != name.strip():
        raise ConfigurationError(
            f"the queue {name!r} can't be named on a worker's command line, where commas part the queues; give it a "
            "printable name without commas, or spaces at its ends"
        )
    if kind == SQS and not _SQS_NAME.fullmatch(name):
        raise ConfigurationError(
            f"the queue {name!r} can't be one of SQS; take at most 80 letters, digits, hyphens and underscores"
        )
    # The delay that Celery writes before a routing key takes 56 of them.
    if kind == RABBITMQ and len(name.encode()) > _AMQP_BYTES - 56:
        raise ConfigurationError(f"the queue {name!r} is too long for RabbitMQ; take at most 199 bytes")
    if kind == RABBITMQ and name.startswith("amq."):
        raise ConfigurationError(f"the queue {name!r} can't be made: RabbitMQ keeps 'amq.' for itself; rename it")
