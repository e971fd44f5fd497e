"""What only the consumer of this process knows, such as the queue of several that a message was read from."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

_consumer: weakref.ref[Any] | None = None


def note_consumer(consumer: Any) -> None:
    """Remember the consumer of this process; a worker has one."""
    global _consumer
    _consumer = weakref.ref(consumer)


def later(seconds: float, action: Callable[[], object]) -> None:
    """Have the worker do ``action`` in some seconds; at once where no worker is at work."""
    consumer = _consumer() if _consumer else None
    if consumer is None or consumer.timer is None:
        action()
    else:
        consumer.timer.call_after(seconds, action)


def queue_of(message: Any) -> str | None:
    """Return the queue's name; None where only the routing key tells it.

    The default exchange names the queue. Of messages from others, only the consumer knows which of its queues it
    read, by the tag that it gave to each.
    """
    delivery = message.delivery_info or {}
    if not delivery.get("exchange") or not _consumer:
        return None
    tag = delivery.get("consumer_tag")
    tags = getattr(getattr(_consumer(), "task_consumer", None), "_active_tags", None) or {}
    return next((queue for queue, active in tags.items() if active == tag), None) if tag else None
