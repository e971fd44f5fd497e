"""Rules that send tasks to lanes, in the plain form that ``task_routes`` takes: ``{pattern: {"queue": ...}}``.

Celery takes a whole name before any pattern, and of patterns the first that fits (``celery.app.routes.MapRoute``).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.lane import Lane


def rules(lanes: Mapping[str, Lane], numbers: Mapping[str, int]) -> dict[str, dict[str, Any]]:
    """Return the rules of ``lanes``, in their order; ``numbers`` are the broker's for each priority.

    Time limits can't be among them: Celery refuses to send a message whose route has one.

    Raises:
        ConfigurationError: two lanes want the same tasks, or a pattern is never reached.
    """
    found: dict[str, dict[str, Any]] = {}
    owners: dict[str, str] = {}
    for name, lane in lanes.items():
        target = _target(name, lane, numbers)
        for pattern in lane.tasks:
            if pattern in owners:
                raise ConfigurationError(
                    f"the lanes {owners[pattern]!r} and {name!r} both have {pattern!r} in their tasks; take it out "
                    "of one"
                )
            if first := _hiding(pattern, owners):
                raise ConfigurationError(
                    f"{pattern!r} of the lane {name!r} is never reached: {first!r} of the lane {owners[first]!r} comes "
                    f"first and takes all that it fits; name the lane {name!r} before {owners[first]!r}"
                )
            owners[pattern] = name
            found[pattern] = dict(target)
    if "priority" in (rest := _target("default", lanes["default"], numbers)):
        # Without one a message is the first on Redis and the last on RabbitMQ. Celery's setting for it won't do: it
        # would win over the priorities of all rules.
        found.setdefault("*", rest)
    return found


def _target(name: str, lane: Lane, numbers: Mapping[str, int]) -> dict[str, Any]:
    target: dict[str, Any] = {"queue": lane.queue or name}
    if lane.priority is not None and lane.priority in numbers:
        target["priority"] = numbers[lane.priority]
    return target


def _hiding(pattern: str, before: Mapping[str, str]) -> str | None:
    """Return the pattern among those ``before`` that fits whatever ``pattern`` fits; None if there is none."""
    if "*" not in pattern:
        return None  # a whole name, which Celery looks for first
    return next((first for first in before if "*" in first and fnmatchcase(pattern, first)), None)
