"""One lane, and the lanes that the project's settings declare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from django.conf import settings

from django_taskkit.exceptions import ConfigurationError

SETTING = "TASKKIT_LANES"
"""Where ``lanes()`` describes the lanes, as plain dicts by name; it stands beside Celery's own settings."""

PRIORITIES = ("critical", "high", "default", "low")
"""Highest first. Which number that is depends on the broker, and on nobody else."""

POOLS = ("prefork", "threads", "gevent", "eventlet", "solo")
WORK = ("cpu", "io")


@dataclass(frozen=True, kw_only=True)
class Lane:
    """A queue with its workers' settings and the tasks routed to it.

    Raises:
        ConfigurationError: an option makes no sense; the message names it, its value and the remedy.
    """

    tasks: Sequence[str] = ()
    """Names of tasks that go here; ``*`` stands for any characters. The lane ``default`` takes all others."""

    priority: str | None = None
    """The priority of its messages by name, one of ``critical, high, default, low``; None: they bear none."""

    pool: str = "prefork"
    """The pool of its workers: ``prefork, threads, gevent, eventlet`` or ``solo``."""

    work: str = "cpu"
    """What its tasks spend their time with, ``cpu`` or ``io``: it decides the concurrency where none is given."""

    concurrency: int | None = None
    """Processes, threads or greenlets of one worker; None: from ``pool``, ``work`` and the machine's cores."""

    prefetch: int | None = None
    """Messages that a worker takes ahead for each of them; None: as Celery's setting says."""

    time_limit: float | None = None
    """Seconds after which a run is killed, for tasks without a limit of their own; None: as Celery's setting says."""

    soft_time_limit: float | None = None
    """Seconds after which a run gets SoftTimeLimitExceeded; None: as Celery's setting says, or below ``time_limit``."""

    max_tasks_per_child: int | None = None
    """Runs after which a process is replaced; prefork only."""

    delivery_limit: int | None = None
    """How often RabbitMQ delivers a message of its quorum queue anew before it is dead; None: 20, as from 4.0 on.

    Not ``TASKKIT["DELIVERY_LIMIT"]``, which counts starts and is reached long before.
    """

    queue: str = ""
    """The queue's name at the broker; empty: the name of the lane."""

    def __post_init__(self) -> None:
        # A list comes from the settings; frozen, it is compared and printed.
        object.__setattr__(self, "tasks", _names(self.tasks))
        if not isinstance(self.queue, str):
            raise ConfigurationError(f"Lane(queue={self.queue!r}) makes no sense; give the queue's name")
        for option, known in (("pool", POOLS), ("work", WORK)):
            self._one_of(option, known)
        if self.priority is not None:
            self._one_of("priority", PRIORITIES)
        for option in ("concurrency", "prefetch", "max_tasks_per_child", "delivery_limit"):
            self._at_least(option, 1, int, "a whole number")
        for option in ("time_limit", "soft_time_limit"):
            self._at_least(option, 0.001, (int, float), "a number of seconds")
        if self.time_limit and self.soft_time_limit and self.soft_time_limit >= self.time_limit:
            raise ConfigurationError(
                f"Lane(soft_time_limit={self.soft_time_limit!r}) is not below time_limit={self.time_limit!r}: Celery "
                "would kill at the soft limit's time; give a smaller one"
            )

    def _one_of(self, option: str, known: Sequence[str]) -> None:
        value = getattr(self, option)
        if value not in known:
            raise ConfigurationError(
                f"Lane({option}={value!r}) makes no sense; give one of {', '.join(map(repr, known))}"
            )

    def _at_least(self, option: str, least: float, kinds: Any, what: str) -> None:
        value = getattr(self, option)
        if value is None:
            return
        if (
            not isinstance(value, kinds) or isinstance(value, bool) or not least <= value < math.inf
        ):  # or it is no number
            raise ConfigurationError(f"Lane({option}={value!r}) makes no sense; give {what} above 0, or None")

    def described(self) -> dict[str, Any]:
        """Return what differs from a bare ``Lane()``, as a dict that ``Lane(**...)`` takes."""
        values = asdict(self) | {"tasks": list(self.tasks)}
        return {field.name: values[field.name] for field in fields(self) if getattr(self, field.name) != field.default}


def declared_lanes() -> dict[str, Lane]:
    """Return the project's lanes by name; empty if it has none.

    Raises:
        ConfigurationError: ``TASKKIT_LANES`` is not what ``lanes()`` returns.
    """
    raw = getattr(settings, SETTING, {})
    try:
        return {name: Lane(**options) for name, options in raw.items()}
    except (AttributeError, TypeError) as exc:
        raise ConfigurationError(f"{SETTING} is {raw!r} ({exc}); let django_taskkit.routing.lanes() make it") from exc


def _names(tasks: Any) -> tuple[str, ...]:
    if isinstance(tasks, str) or not isinstance(tasks, (Sequence, set, frozenset)):
        raise ConfigurationError(f"Lane(tasks={tasks!r}) makes no sense; give a list of names, such as ['reports.*']")
    if wrong := [name for name in tasks if not isinstance(name, str) or not name or name != name.strip()]:
        raise ConfigurationError(f"Lane(tasks=...) has {wrong[0]!r} in it; give names, such as 'reports.*'")
    return tuple(tasks)
