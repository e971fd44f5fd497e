"""The values of labels, kept few: each one is a series of its own in whatever stores them."""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

from celery.app import app_or_default

from django_taskkit.dlq.models import Reason
from django_taskkit.envelope import RAW_MESSAGE
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.origin import origin_of
from django_taskkit.routing.lane import declared_lanes

logger = logging.getLogger("django_taskkit")

UNKNOWN = "unknown"

MOST_LANES = 100
"""Queues beside those of lanes that a process tells apart; of a sender that makes one for each user the others are
counted as unknown."""

_lanes: dict[str, str] = {}
_ways: dict[tuple[str, str], str] = {}
_reasons = frozenset(Reason.values)


def of_task(name: str) -> str:
    """Return the name of a task that this process knows, or ``unknown``: a message may name anything."""
    registry: Any = app_or_default()._tasks  # type: ignore[attr-defined]  # ``tasks`` would finalize the app
    return name if name in registry else UNKNOWN


def of_task_elsewhere(name: str) -> str:
    """As :func:`of_task`, in a process that may not have loaded its tasks yet, such as web or relay."""
    if (known := of_task(name)) != UNKNOWN:
        return known
    _load_tasks()
    return of_task(name)


def of_reason(reason: str) -> str:
    return reason if reason in _reasons else UNKNOWN


def of_queue(name: str) -> str:
    """Return the lane of a queue: the name that the project gave it, else the queue's own."""
    lane = _declared().get(name) or _lanes.get(name)
    if lane is None:
        if len(_lanes) >= MOST_LANES:
            return UNKNOWN
        lane = _lanes[name] = name or UNKNOWN
    return lane


def lane_of(name: str) -> str:
    """As :func:`of_queue`, of a queue that an operator has chosen, however many these are."""
    return _declared().get(name, name) or UNKNOWN


def queues_of_lanes() -> tuple[str, ...]:
    """Return the queues that the project has given names."""
    return tuple(_declared())


def of_way(exchange: Any, routing_key: str) -> str:
    """Return the lane that exchange and routing key lead to, as far as this process can tell."""
    way = (str(getattr(exchange, "name", exchange) or ""), str(routing_key or ""))
    lane = _ways.get(way)
    if lane is None:
        queue = origin_of(app_or_default(), {"exchange": way[0], "routing_key": way[1]})[2]
        lane = of_queue(queue) if queue else UNKNOWN
        if len(_ways) < 10 * MOST_LANES:
            _ways[way] = lane
    return lane


def of_request(request: Any) -> str:
    """Return the lane that a running task came from."""
    raw = getattr(request, RAW_MESSAGE, None)
    queue = raw[4] if raw else None
    if queue:
        return of_queue(queue)
    delivery = request.delivery_info or {}
    return of_way(delivery.get("exchange"), delivery.get("routing_key") or "")


def forget() -> None:
    """Ask the settings again, for tests that change them."""
    _lanes.clear()
    _ways.clear()
    _declared.cache_clear()
    _load_tasks.cache_clear()


@lru_cache(maxsize=1)
def _declared() -> dict[str, str]:
    try:
        return {lane.queue or name: name for name, lane in declared_lanes().items()}
    except ConfigurationError:  # the checks say so
        return {}


@lru_cache(maxsize=1)
def _load_tasks() -> None:
    try:
        app_or_default().loader.import_default_modules()
    except Exception:  # some module of the project can't be imported here; its tasks are unknown then
        logger.exception("metrics: the tasks of the project can't be loaded")
