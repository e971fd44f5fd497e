"""Lanes that many projects need, as dicts for ``lanes(**by_workload(...))``; print one to see what is in it.

The lane ``default``, which ``lanes()`` adds by itself, is in none of them, so that several go together with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.lane import PRIORITIES, Lane

_OF_CONFIG = ".apps."


def by_workload(
    *, fast: Iterable[str] = (), slow: Iterable[str] = (), cpu: Iterable[str] = (), slow_limit: float = 3600
) -> dict[str, Lane]:
    """Return the lanes ``fast, slow`` and ``cpu`` beside ``default``: no short task waits behind a long one.

    Args:
        fast: names or patterns of tasks that end within about a second and mostly wait for a network. Threads run
            them, which no time limit ends: give the calls in them timeouts.
        slow: of tasks that take minutes. A worker takes none ahead, so that none waits behind another one.
        cpu: of tasks that compute, one process for each core, none taken ahead.
        slow_limit: seconds after which a task in ``slow`` is killed; it gets a soft limit at nine tenths of it.

    Raises:
        ConfigurationError: something is no list of names, or no number of seconds.
    """
    if not isinstance(slow_limit, (int, float)) or not 0 < slow_limit < math.inf:
        raise ConfigurationError(
            f"by_workload(slow_limit={slow_limit!r}) makes no sense; give a number of seconds above 0"
        )
    return {
        "fast": Lane(tasks=_names("fast", fast), pool="threads", work="io"),
        "slow": Lane(
            tasks=_names("slow", slow),
            work="io",
            prefetch=1,
            time_limit=slow_limit,
            soft_time_limit=round(slow_limit * 0.9, 3),
        ),
        "cpu": Lane(tasks=_names("cpu", cpu), work="cpu", prefetch=1),
    }


def by_priority(
    *, critical: Iterable[str] = (), high: Iterable[str] = (), low: Iterable[str] = (), queue: str = ""
) -> dict[str, Lane]:
    """Return the lanes ``critical, high`` and ``low``, whose messages bear the priority of that name.

    ``lanes()`` gives ``default``, and all other lanes beside them, the priority ``default``.

    Each has a queue and workers of its own: no broker lets what is critical wait behind what is not. On Redis, a
    worker that reads several of them takes the most urgent first as well.

    Args:
        critical: names or patterns of tasks; so ``high`` and ``low``. The rest is ``default``.
        queue: one queue for them and ``default`` instead, whose workers take the most urgent message first: Redis,
            or RabbitMQ with ``queue_type="classic"``.

    Raises:
        ConfigurationError: something is no list of names.
    """
    tasks: dict[str, Iterable[str]] = {"critical": critical, "high": high, "default": (), "low": low}
    names = [name for name in PRIORITIES if queue or name != "default"]
    return {name: Lane(tasks=_names(name, tasks[name]), priority=name, queue=queue) for name in names}


def by_app(*apps: str, **options: Any) -> dict[str, Lane]:
    """Return a lane for each of ``apps``, with the tasks whose names begin with it, as those of Celery's autodiscovery.

    ``by_app("billing", "shop.reports")`` gives ``billing`` with ``billing.*`` and ``reports`` with ``shop.reports.*``.
    An entry of ``INSTALLED_APPS`` that names an app's configuration will do.

    Args:
        *apps: names of Python packages.
        **options: for every one of the lanes, as for ``Lane``.

    Raises:
        ConfigurationError: two apps would have a lane of the same name, or something is no name.
    """
    found: dict[str, Lane] = {}
    packages: dict[str, str] = {}
    for app in apps:
        package = app.partition(_OF_CONFIG)[0] if isinstance(app, str) else ""
        if not all(part.isidentifier() for part in package.split(".")):
            raise ConfigurationError(f"by_app({app!r}) makes no sense; give the name of an app, such as 'billing'")
        name = package.rpartition(".")[2]
        if name in found:
            raise ConfigurationError(
                f"by_app() has {packages[name]!r} and {package!r}, whose lanes would both be named {name!r}; write "
                f"one of them yourself: Lane(tasks=['{package}.*'])"
            )
        found[name] = Lane(tasks=[f"{package}.*"], **options)
        packages[name] = package
    return found


def retry_lane(name: str = "retry", **options: Any) -> dict[str, Lane]:
    """Return one lane for retries: tasks with ``retry_queue = "retry"`` wait and run there again, out of the way.

    From the first retry on it is this lane's limits that hold, and not those of the lane that a task comes from.

    Args:
        name: of the lane. With another one, or with a prefix, tasks name the queue that ``lanes()`` shows for it.
        **options: as for ``Lane``.
    """
    return {name: Lane(**options)}


def _names(option: str, tasks: Iterable[str]) -> tuple[str, ...]:
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        raise ConfigurationError(f"{option}={tasks!r} makes no sense; give a list of names, such as ['reports.*']")
    return tuple(tasks)
