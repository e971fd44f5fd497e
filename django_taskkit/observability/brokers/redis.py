"""Queues on Redis: a list for each priority, pushed on the left, popped on the right."""

from __future__ import annotations

from typing import Any

from celery import Celery

from django_taskkit.observability.brokers.ages import Unknown, age_of, oldest_of
from django_taskkit.observability.queues import QueueState

LOOK_FURTHER = 20
"""Messages that are read of a list whose oldest is not due yet; beyond these the age is not known."""


def look(app: Celery, connection: Any, names: list[str]) -> list[QueueState]:
    """Lengths and oldest messages of all lists in one round trip, in a second one those behind a future ETA."""
    channel = connection.channel()
    client = plain_client(channel)
    lists = {name: lists_of(channel, name) for name in names}
    keys = [key for found in lists.values() for key in found]
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.llen(key).lindex(key, -1)
        replies = pipe.execute()
    depths = dict(zip(keys, replies[::2], strict=True))
    ages = {
        key: [age_of(app, message)] for key, message in zip(keys, replies[1::2], strict=True) if message is not None
    }
    blocked = [key for key, [age] in ages.items() if age is Unknown.NOT_DUE and depths[key] > 1]
    if blocked:
        with client.pipeline(transaction=False) as pipe:
            for key in blocked:
                pipe.lrange(key, -1 - LOOK_FURTHER, -2)
            for key, messages in zip(blocked, pipe.execute(), strict=True):
                ages[key] = [age_of(app, message) for message in messages]
    return [
        QueueState(
            name=name,
            depth=sum(depths[key] for key in found),
            oldest=oldest_of(age for key in found for age in ages.get(key, ())),
            consumers=None,
            kind="list",
        )
        for name, found in lists.items()
    ]


def plain_client(channel: Any) -> Any:
    """Return a client of the channel's server (Sentinels and TLS included) that takes keys as they are.

    kombu's own puts ``global_keyprefix`` before the keys of the commands that kombu uses, and of no others.
    """
    from redis import Redis

    return Redis(connection_pool=channel.pool)


def lists_of(channel: Any, queue: str) -> list[str]:
    """Return the keys of the lists, one for each of the app's ``priority_steps``, most urgent first."""
    keys = (channel._q_for_pri(queue, step) for step in channel.priority_steps)
    return list(dict.fromkeys(f"{channel.global_keyprefix}{key}" for key in keys))
