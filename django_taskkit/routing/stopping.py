"""How long a stop of a worker may take: as long as the longest task it may be in the midst of."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery

from django_taskkit.routing.lane import Lane

STOP_MARGIN = 15
"""Seconds of a stop beyond its longest task: for the acknowledgement, the result, and the pool's own end.

Measured with Celery 5.7 on two cores: 3.5 seconds after the last task.
"""

STOP_GRACE_WITHOUT_LIMIT = 300
"""Seconds that a stop may take where no time limit says how long a task runs."""

_PREFETCH = 4
"""Celery's default, for a setting of 0, which takes ahead without a limit."""


@dataclass(frozen=True, order=True)
class OwnLimit:
    """A time limit that a task has of its own."""

    seconds: float
    task: str
    soft: bool = False


def soft_limit(lane: Lane, conf: Any) -> float | None:
    """Return the soft limit in force: with a hard limit of its own, the project's would be meant for another one."""
    project: float | None = conf.task_soft_time_limit
    if lane.soft_time_limit or not (lane.time_limit and project):
        return lane.soft_time_limit or project
    return round(lane.time_limit * 0.9, 3)


def stop_grace(conf: Any, lane: Lane, own: Iterable[OwnLimit]) -> tuple[int, str, tuple[str, ...]]:
    """Return how long a stop may take in seconds, why, and what to say where nothing bounds it.

    A soft limit counts on prefork, alone or above the hard one, which Celery forgets until the soft one has passed.

    A warm stop of prefork waits for the tasks that run. The other pools go on with what they have taken ahead: with
    tasks of one second and prefetch 4, a stop took 3 rounds (solo) and 11 (gevent) on RabbitMQ, 2 with prefetch 1;
    threads do it before Celery 5.7.

    Args:
        conf: Celery's settings.
        lane: whose worker it is.
        own: the limits of its tasks that have one of their own.
    """
    hard: float | None = lane.time_limit or conf.task_time_limit
    ahead = lane.prefetch or conf.worker_prefetch_multiplier or _PREFETCH
    rounds = 1 if lane.pool == "prefork" else 1 + ahead
    margin = STOP_MARGIN + (conf.worker_soft_shutdown_timeout or 0)
    limits = [(hard, "the hard time limit")] if hard else []
    soft = soft_limit(lane, conf) if lane.pool == "prefork" else None
    if soft:
        limits.append((soft, "the soft time limit"))
    counted = [limit for limit in own if lane.pool == "prefork" or not limit.soft]
    limits += [(one.seconds, f"the {'soft ' if one.soft else ''}time limit of {one.task}") for one in counted]
    longest, whose = max(limits, default=(0.0, ""))
    seconds = math.ceil(longest * rounds + margin)
    if hard:
        reason = f"{longest:g} s ({whose})"
        if rounds > 1:
            reason += f" {rounds} times, as the pool {lane.pool} may go on with what it took ahead (prefetch {ahead}),"
        return seconds, f"a stop may take {reason} and {margin:g} s for the end of the worker", ()
    most = max(STOP_GRACE_WITHOUT_LIMIT, seconds)
    nothing = "nothing but a soft limit, which a task may catch," if soft else "nothing"
    warning = (
        f"{nothing} ends a task that hangs, so a stop is given {most} s, and kills what runs then; set "
        "task_time_limit, or time_limit of the lane"
    )
    return most, f"a stop may take {most} s, as no hard time limit says how long a task runs", (warning,)


def longest_limits(app: Celery) -> dict[str, list[OwnLimit]]:
    """Return for each queue the longest limits, hard and soft, that tasks have of their own and run or retry there."""
    found: dict[tuple[str, bool], OwnLimit] = {}
    conf: Any = app.conf
    tasks: Mapping[str, Any] = app.tasks
    for name, task in list(tasks.items()):
        for option in ("time_limit", "soft_time_limit"):
            seconds = getattr(task, option, None)
            # From Celery 5.7 on, a task without a limit of its own has that of the settings.
            if not seconds or seconds == conf[f"task_{option}"]:
                continue
            limit = OwnLimit(float(seconds), name, option == "soft_time_limit")
            for queue in filter(None, (_queue_of(app, task), _retries_of(task))):
                found[queue, limit.soft] = max(found.get((queue, limit.soft), limit), limit)
    limits: dict[str, list[OwnLimit]] = {}
    for (queue, _soft), limit in found.items():
        limits.setdefault(queue, []).append(limit)
    return limits


def _retries_of(task: Any) -> str | None:
    queue = getattr(task, "retry_queue", None)
    return queue if isinstance(queue, str) else None


def _queue_of(app: Celery, task: Any) -> str | None:
    amqp: Any = app.amqp
    asked = {name: getattr(task, name) for name in ("queue", "exchange", "routing_key") if getattr(task, name, None)}
    try:
        queue = amqp.router.route(asked, task.name).get("queue")
    except Exception:  # a router of the project's own, or a queue that nobody declared: `taskkit routes` says so
        return None
    name = getattr(queue, "name", queue)
    return name if isinstance(name, str) else None
