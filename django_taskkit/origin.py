"""Which queue a message came from, and how it got there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from celery import Celery
from kombu import Queue

# kombu.transport.native_delayed_delivery prefixes the routing key with 28 bits of the delay. Since kombu 5.7 its
# exchanges may have a prefix as well.
_DELAY_EXCHANGE = "celery_delayed"
_DELAY_PREFIX = re.compile(r"^(?:[01]\.){28}")


def origin_of(app: Celery, delivery: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return exchange, routing key and queue name of a delivery, with delayed delivery's detour taken out.

    The queue is empty where neither the worker nor the app can say which of several it was.
    """
    exchange = str(delivery.get("exchange") or "")
    routing_key = str(delivery.get("routing_key") or "")
    delayed = _DELAY_EXCHANGE in exchange and bool(_DELAY_PREFIX.match(routing_key))
    if delayed:
        exchange, routing_key = "", _DELAY_PREFIX.sub("", routing_key)
    queues = app.amqp.queues
    name: str = delivery.get("queue") or ""
    if not name:
        bound = [queue for queue in queues.values() if _is_bound(queue, None if delayed else exchange, routing_key)]
        if len(bound) == 1:
            name = bound[0].name or ""
        elif not bound and not exchange:
            name = routing_key  # the default exchange takes a queue's name as routing key, on every broker
    if delayed and name in queues and queues[name].exchange:
        exchange = queues[name].exchange.name
    return exchange, routing_key, name


def _is_bound(queue: Queue, exchange: str | None, routing_key: str) -> bool:
    """Say whether ``exchange`` (None: any) hands messages with ``routing_key`` to ``queue``."""
    own = queue.exchange
    if exchange is not None and (own.name if own else "") != exchange:
        return exchange == "" and queue.name == routing_key
    if own is None or own.type == "direct":
        return bool(queue.routing_key == routing_key)
    if own.type == "fanout":
        return True
    # A topic: * is one word, # any number of them.
    words = (re.escape(word) for word in (queue.routing_key or "").split("."))
    pattern = r"\.".join({r"\*": r"[^.]+", r"\#": r".*"}.get(word, word) for word in words)
    return re.fullmatch(pattern.replace(r"\..*", r"(?:\..*)?"), routing_key) is not None
