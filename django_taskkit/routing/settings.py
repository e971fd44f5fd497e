"""``lanes()``: Celery's settings for a project's lanes, as a plain dict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.brokers import NUMBERS, RABBITMQ, SQS, kind_of
from django_taskkit.routing.lane import SETTING, Lane
from django_taskkit.routing.queues import (
    DELIVERY_LIMIT,
    QUEUE_TYPES,
    by_queue,
    classic,
    direct,
    quorum,
    refuse_bad_names,
    routing_key,
)
from django_taskkit.routing.rules import rules
from django_taskkit.routing.transport_options import options_of

EXCHANGE = "taskkit.lanes"
"""The topic exchange of all quorum queues; of its own, since RabbitMQ never changes the type of one that is there."""

DEAD_LETTER_QUEUE = "taskkit.dead"
"""Where RabbitMQ puts messages that it gives up."""

LONGEST_PREFIX = 100
"""Bytes; it is also before the exchange's name."""


def lanes(
    *,
    broker: Any,
    namespace: str = "CELERY_",
    prefix: str = "",
    queue_type: str = "quorum",
    dead_letter_queue: str | None = DEAD_LETTER_QUEUE,
    transport_options: Mapping[str, Any] | None = None,
    **lanes: Lane,
) -> dict[str, Any]:
    """Return Celery's settings for these lanes, as a dict to print, compare and change.

    In a settings module: ``globals().update(lanes(broker=CELERY_BROKER_URL, reports=Lane(tasks=["reports.*"])))``.
    There is always a lane ``default``: it takes what no other one takes.

    Args:
        broker: the broker's URL: Redis, RabbitMQ, SQS, or the filesystem, memory or SQL for development.
        namespace: what the names of Celery's settings begin with; empty: they are in small letters, as in a
            ``celeryconfig`` module. ``TASKKIT_LANES`` is none of Celery's and always has this name.
        prefix: what the names of all queues begin with, for projects that share a broker. A lane's own ``queue``
            stays as it is.
        queue_type: ``"quorum"`` or ``"classic"``, on RabbitMQ; others ignore it.
        dead_letter_queue: where RabbitMQ puts what it gives up; name it in ``TASKKIT["INTAKE_QUEUES"]``. With
            ``prefix`` before it, unless it is one that you chose. None or empty: RabbitMQ drops such messages.
        transport_options: what else the broker's transport is to be told, such as ``{"region": "eu-west-1"}``; it
            wins over what is worked out here.
        **lanes: the lanes by name.

    Raises:
        ConfigurationError: something makes no sense; the message names the value and the remedy.
    """
    kind = kind_of(broker)
    _refuse_bad_options(namespace, prefix, queue_type, dead_letter_queue, transport_options, lanes)
    named = _named(lanes, prefix)
    numbers = NUMBERS[kind]
    shared = by_queue(named)
    topic = kind == RABBITMQ and queue_type == "quorum"
    dead = f"{prefix}{DEAD_LETTER_QUEUE}" if dead_letter_queue == DEAD_LETTER_QUEUE else dead_letter_queue or ""
    refuse_bad_names(kind, shared, dead=dead, topic=topic)
    if topic:
        _refuse_priorities_in_one_queue(named, shared)
    if kind == RABBITMQ and dead in shared:
        raise ConfigurationError(
            f"dead_letter_queue={dead!r} is the queue of the lane {shared[dead][0]!r}; its workers would run what is "
            "dead; give another name"
        )
    found: dict[str, Any] = {
        "task_queues": _queues(kind, named, shared, topic=topic, exchange=f"{prefix}{EXCHANGE}", dead=dead),
        "task_routes": rules(named, numbers),
        "task_create_missing_queues": False,
        **_default(kind, named["default"].queue or "default", topic=topic, exchange=f"{prefix}{EXCHANGE}"),
        "broker_transport_options": {**options_of(kind, named), **(transport_options or {})},
    }
    if kind == RABBITMQ:
        # Quorum queues know prefetch counts for each consumer only; classic ones are not disturbed by it.
        found |= {"task_default_queue_type": queue_type, "worker_detect_quorum_queues": True}
    if topic:
        found |= {"broker_native_delayed_delivery_queue_type": "quorum"}
    if kind == SQS:
        # It can't send one message to all workers, which both need.
        found |= {"worker_enable_remote_control": False, "worker_send_task_events": False}
    described = {name: lane.described() for name, lane in named.items()}
    return {_spelt(name, namespace): value for name, value in found.items()} | {SETTING: described}


def _refuse_bad_options(
    namespace: Any,
    prefix: Any,
    queue_type: Any,
    dead_letter_queue: Any,
    transport_options: Any,
    lanes: Mapping[str, Any],
) -> None:
    if not isinstance(namespace, str) or namespace != namespace.upper() or (namespace and namespace[-1] != "_"):
        raise ConfigurationError(
            f"lanes(namespace={namespace!r}) makes no sense; give 'CELERY_', or '' for names in small letters"
        )
    if queue_type not in QUEUE_TYPES:
        raise ConfigurationError(f"lanes(queue_type={queue_type!r}) makes no sense; give 'quorum' or 'classic'")
    if not isinstance(prefix, str) or prefix.startswith("amq.") or len(prefix.encode()) > LONGEST_PREFIX:
        raise ConfigurationError(
            f"lanes(prefix={prefix!r}) makes no sense; give text such as 'shop.', of at most {LONGEST_PREFIX} bytes, "
            "that does not begin with 'amq.', which RabbitMQ keeps for itself"
        )
    if not isinstance(dead_letter_queue, str | None):
        raise ConfigurationError(
            f"lanes(dead_letter_queue={dead_letter_queue!r}) makes no sense; give the name of a queue, or None"
        )
    if not isinstance(transport_options, Mapping | None):
        raise ConfigurationError(
            f"lanes(transport_options={transport_options!r}) makes no sense; give a dict, such as "
            "{'region': 'eu-west-1'}"
        )
    for name, lane in lanes.items():
        if not name or not name.isprintable():
            raise ConfigurationError(f"lanes() has a lane named {name!r}; give it a name that can be printed")
        if not isinstance(lane, Lane):
            raise ConfigurationError(
                f"lanes({name}={lane!r}) is neither an option nor a Lane; give Lane(tasks=[...]), or correct the name"
            )


def _named(lanes: Mapping[str, Lane], prefix: str) -> dict[str, Lane]:
    """Return the lanes with ``default`` among them, each with the name of its queue where that differs."""
    named = dict(lanes) if "default" in lanes else {"default": Lane(), **lanes}
    if any(lane.priority for lane in named.values()):
        # One without a priority would come first on Redis, and last on RabbitMQ.
        named = {name: lane if lane.priority else replace(lane, priority="default") for name, lane in named.items()}
    if not prefix:
        return named
    return {name: lane if lane.queue else replace(lane, queue=f"{prefix}{name}") for name, lane in named.items()}


def _refuse_priorities_in_one_queue(lanes: Mapping[str, Lane], shared: Mapping[str, list[str]]) -> None:
    for queue, names in shared.items():
        if len({lanes[name].priority for name in names}) > 1:
            raise ConfigurationError(
                f"the lanes {', '.join(names)} share the queue {queue!r} and differ in priority, which quorum queues "
                "have not before RabbitMQ 4, and hardly since; give each a queue of its own, or say "
                'queue_type="classic"'
            )


def _queues(
    kind: str, lanes: Mapping[str, Lane], shared: Mapping[str, list[str]], *, topic: bool, exchange: str, dead: str
) -> dict[str, dict[str, Any]]:
    found = {}
    for queue, names in shared.items():
        if topic:
            limits = [lanes[name].delivery_limit or DELIVERY_LIMIT for name in names]
            found[queue] = quorum(queue, exchange=exchange, dead=dead, delivery_limit=max(limits))
        else:
            found[queue] = classic(queue, dead=dead) if kind == RABBITMQ else direct(queue)
    return found


def _default(kind: str, queue: str, *, topic: bool, exchange: str) -> dict[str, Any]:
    return {
        "task_default_queue": queue,
        "task_default_exchange": exchange if topic else queue,
        "task_default_exchange_type": "topic" if topic else "direct",
        "task_default_routing_key": routing_key(queue) if topic else queue,
    }


def _spelt(name: str, namespace: str) -> str:
    return f"{namespace}{name.upper()}" if namespace else name
