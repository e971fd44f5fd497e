"""taskkit.E030 to E032 and W060 to W063: where tasks are sent; and what a task's lane adds to its options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery
from django.core import checks

from django_taskkit.checks.configuration import number, own_tasks, settings_of
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.explain import explain
from django_taskkit.routing.lane import Lane, declared_lanes
from django_taskkit.routing.problems import problems


def cannot_be_sent(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.E030, E031 and E032."""
    return _routing(app, "E", checks.Error)


def may_not_be_read(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.W060 to W063."""
    return _routing(app, "W", checks.Warning)


def _routing(app: Celery, letter: str, kind: Any) -> Iterator[checks.CheckMessage]:
    try:
        app.connection_for_write().get_transport_cls()
    except Exception:
        return  # E005, and nobody could route
    for problem in problems(app):
        if problem.id.startswith(f"taskkit.{letter}"):
            yield kind(problem.text, hint=problem.hint, obj=problem.task or None, id=problem.id)


class OfLanes:
    """Time limits and prefetch of tasks, with what the worker of their lane says where they say nothing."""

    def __init__(self, app: Celery) -> None:
        try:
            lanes = declared_lanes()
            tasks = own_tasks(app) if lanes else []
            routes = explain(app, [name for name, _task in tasks])
        except ConfigurationError:  # E031
            lanes, routes = {}, []
        self._lanes: dict[str, list[Lane]] = {route.task: [lanes[name] for name in route.lanes] for route in routes}
        self._limit = number(settings_of(app).task_time_limit)
        self._prefetch = number(settings_of(app).worker_prefetch_multiplier)

    def limit(self, name: str, task: Any) -> float | None:
        """Return the seconds after which a run is killed; the longest, if several lanes read its queue."""
        if own := number(task.time_limit):
            return own  # since Celery 5.7 that of the settings as well
        limits = [number(lane.time_limit) for lane in self._lanes.get(name, [])]
        if limits and all(limits):
            return max(limit for limit in limits if limit)
        return self._limit

    def prefetch(self, name: str) -> float | None:
        """Return how many messages a worker fetches for each process; the most, if several lanes read its queue."""
        own = [number(lane.prefetch) for lane in self._lanes.get(name, [])]
        return max((many for many in own if many), default=None) if own and all(own) else self._prefetch
