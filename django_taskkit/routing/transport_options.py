"""What kombu's transports are told, so that what they hold agrees with how long the lanes' tasks may run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.brokers import NUMBERS, REDIS, SQS
from django_taskkit.routing.lane import Lane

VISIBLE = 3600
"""Seconds of the least visibility timeout: kombu's own on Redis."""

VISIBLE_MARGIN = 300
"""Seconds beyond the longest run: for a killed child's report, a broker that is away, a slow acknowledgement."""

SQS_LONGEST = 12 * 3600
"""Amazon's longest visibility timeout, in seconds."""

PREFETCH = 4
"""Messages that a worker holds for each process where neither lane nor project says: Celery's default."""


def options_of(kind: str, lanes: Mapping[str, Lane]) -> dict[str, Any]:
    """Return ``broker_transport_options`` for these lanes.

    None for RabbitMQ: the app turns confirms on where they matter. Said here, they would hold for the connection of a
    worker's events too, and under gevent a heartbeat that waits for its confirm can keep the worker from stopping.

    Raises:
        ConfigurationError: a lane's tasks may be held for longer than SQS allows.
    """
    if kind == REDIS:
        return {
            "visibility_timeout": visibility_timeout(lanes),
            "priority_steps": sorted(NUMBERS[REDIS].values()),
            # Priorities come before queues in any case. Under "priority", a queue that is never empty would starve
            # those behind it; this takes turns among queues of the same priority.
            "queue_order_strategy": "round_robin",
        }
    if kind == SQS:
        visible = visibility_timeout(lanes)
        if visible > SQS_LONGEST:
            slowest = max(lanes, key=lambda name: _held(lanes[name]))
            raise ConfigurationError(
                f"the lane {slowest!r} may hold a message for {_held(lanes[slowest]):g} s, and SQS gives it to another "
                f"worker after {SQS_LONGEST} s at the latest; give the lane prefetch=1, or a shorter time_limit"
            )
        # Amazon's longest poll, which costs the fewest requests.
        return {"visibility_timeout": visible, "wait_time_seconds": 20}
    return {}


def visibility_timeout(lanes: Mapping[str, Lane]) -> int:
    """Return for how many seconds a worker may hold a message before the broker gives it to another one.

    A message that was taken ahead waits for those before it, each of which may run up to the limit.
    """
    longest = max((_held(lane) for lane in lanes.values()), default=0)
    return max(VISIBLE, math.ceil(longest + VISIBLE_MARGIN))


def _held(lane: Lane) -> float:
    limit = lane.time_limit or lane.soft_time_limit or 0
    return limit * (lane.prefetch or PREFETCH)
