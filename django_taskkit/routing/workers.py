"""The worker of each lane: its command line, its size, and how long a stop of it may take."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from celery import Celery

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.lane import POOLS, Lane, declared_lanes
from django_taskkit.routing.stopping import STOP_GRACE_WITHOUT_LIMIT, OwnLimit, longest_limits, soft_limit, stop_grace

THREADS_PER_CORE = 5
"""Threads that wait for a network most of the time, for one core; four to ten are usual."""

PROCESSES_PER_CORE = 2
"""Processes that wait, for one core: a waiting process costs no time but the memory of a whole Django."""

GREENLETS = 100
"""Greenlets of one worker; a hundred to a thousand are usual, and each that uses the ORM has its own connection."""

HARD_LIMIT_POOLS = ("prefork", "gevent")
"""Pools that end a task at its hard limit; gevent does at the next switch, never in the midst of computing."""

SOFT_LIMIT_POOLS = ("prefork",)
"""Pools that raise SoftTimeLimitExceeded; all others ignore the soft limit."""

_OTHER_NAMES_OF_PREFORK = ("processes",)


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """What the worker of one lane is started with, and why."""

    name: str
    """The lane's name, in letters, digits, ``-`` and ``_``: part of file and service names."""

    lanes: tuple[str, ...]
    """The lane, or all that share its queue; none in a project without lanes."""

    queues: tuple[str, ...]
    pool: str
    concurrency: int
    prefetch: int | None = None
    """Messages taken ahead for each process or thread; None: as the project's settings say."""

    time_limit: float | None = None
    """Seconds; the lane's own hard limit, None where it has none or the pool would ignore it."""

    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    stop_grace: int = STOP_GRACE_WITHOUT_LIMIT
    """Seconds between TERM and KILL: a warm stop lets tasks finish, and a shorter time kills them."""

    node_suffix: str = ""
    """What tells the nodes of two workers apart that have one lane and one host."""

    why: tuple[str, ...] = ()
    """Sentences on how the numbers came about."""

    warnings: tuple[str, ...] = ()
    """Sentences on what the lane asks for and will not get."""

    @property
    def node(self) -> str:
        """The first part of the node name: the queue's, as projects that share a broker have lanes of one name.

        RabbitMQ lets one worker of a node name in, as its queue for remote control is exclusive.
        """
        return plain_name(self.queues[0]) + self.node_suffix

    def argv(self, app: str, *, loglevel: str = "INFO") -> tuple[str, ...]:
        """Return the arguments for Python: ``-m celery -A app worker ...``.

        The limits are given as settings (``task.time_limit=60``), which Celery takes behind its options: on Celery
        5.7 the option ``--time-limit`` does nothing where the project has ``task_time_limit``. There is no
        ``-O fair``, as it has been the default since Celery 4.

        Args:
            app: what ``celery -A`` takes.
        """
        arguments = ["-m", "celery", "-A", app, "worker", f"--hostname={self.node}@%h", f"--loglevel={loglevel}"]
        arguments += [f"--queues={','.join(self.queues)}"]
        if self.pool in POOLS:  # a pool of the project's own can be named by its settings alone
            arguments += [f"--pool={self.pool}"]
        arguments += [f"--concurrency={self.concurrency}"]
        if self.prefetch is not None:
            arguments += [f"--prefetch-multiplier={self.prefetch}"]
        if self.max_tasks_per_child is not None:
            arguments += [f"--max-tasks-per-child={self.max_tasks_per_child}"]
        for setting, seconds in (("time_limit", self.time_limit), ("soft_time_limit", self.soft_time_limit)):
            if seconds is not None:
                arguments += [f"task.{setting}={seconds:g}"]
        return tuple(arguments)


def usable_cores() -> int:
    """Return how many cores this process may use; a container's quota is not counted, its CPU set is."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def worker_plans(app: Celery, *, lanes: Mapping[str, Lane] | None = None, cores: int | None = None) -> list[WorkerPlan]:
    """Return a plan for the worker of each lane, in their order; without lanes, one for all queues of ``app``.

    Lanes that share a queue share a worker.

    Args:
        app: the project's app, with its tasks imported: their own time limits count for the stop.
        lanes: by name; None: those that the settings declare.
        cores: of the machine that the workers will run on; None: of this one.

    Raises:
        ConfigurationError: two lanes or queues have names that are the same once written for a shell, a queue can't
            be written on a command line, or ``cores`` is below 1.
    """
    if cores is not None and cores < 1:
        raise ConfigurationError(f"cores is {cores}; give the number of cores of the machine, 1 or more")
    cores = cores or usable_cores()
    lanes = declared_lanes() if lanes is None else lanes
    longest = longest_limits(app)
    if not lanes:
        return [_undivided(app, cores, longest)]
    sharing: dict[str, list[str]] = {}
    for name, lane in lanes.items():
        sharing.setdefault(lane.queue or name, []).append(name)
    plans: dict[str, WorkerPlan] = {}
    nodes: dict[str, str] = {}
    for queue, names in sharing.items():
        # A worker can't tell apart the lanes of one queue: they have one, named after the queue.
        plan = _planned(
            app, plain_name(queue if len(names) > 1 else names[0]), (queue,), lanes[names[0]], cores, longest
        )
        differing = [name for name in names[1:] if _of_workers(lanes[name]) != _of_workers(lanes[names[0]])]
        warnings = [
            f"the lane {name} shares the queue {queue} with {names[0]}, and runs as that one says" for name in differing
        ]
        # Kubernetes has neither capitals nor underscores.
        key = plan.name.lower().replace("_", "-")
        if other := plans.get(key):
            raise ConfigurationError(
                f"The lanes {other.lanes[0]!r} and {names[0]!r} would both have a worker named {key!r}; rename one"
            )
        if (other_queue := nodes.setdefault(plan.node, queue)) != queue:
            raise ConfigurationError(
                f"The queues {other_queue!r} and {queue!r} would both have a worker with the node name "
                f"'{plan.node}@%h'; rename one"
            )
        plans[key] = replace(plan, lanes=tuple(names), warnings=(*plan.warnings, *warnings))
    return list(plans.values())


def _of_workers(lane: Lane) -> Lane:
    """Return what of ``lane`` concerns its workers."""
    return replace(lane, tasks=(), priority=None, delivery_limit=None)


def plain_name(name: str) -> str:
    """Return ``name`` in letters, digits, ``-`` and ``_``, which a shell, systemd and Docker all take."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-_") or "worker"


def _planned(
    app: Celery,
    name: str,
    queues: tuple[str, ...],
    lane: Lane,
    cores: int,
    longest: Mapping[str, Sequence[OwnLimit]],
) -> WorkerPlan:
    for queue in queues:
        if "," in queue or queue != queue.strip() or not queue.isprintable():
            raise ConfigurationError(
                f"The queue {queue!r} can't be named on a command line, where commas part the queues; rename it"
            )
    conf: Any = app.conf
    concurrency, why = _size(lane, cores)
    warnings = []
    if lane.pool == "solo" and (lane.concurrency or 1) > 1:
        warnings.append(f"the pool solo runs one task at a time; concurrency={lane.concurrency} does nothing")
    if lane.max_tasks_per_child and lane.pool != "prefork":
        warnings.append(f"the pool {lane.pool} has no processes to replace; max_tasks_per_child does nothing")
    hard = lane.time_limit or conf.task_time_limit
    soft = soft_limit(lane, conf)
    if (hard or soft) and lane.pool not in HARD_LIMIT_POOLS:
        warnings.append(
            f"the pool {lane.pool} ignores time limits (here {hard or soft:g} s): a task that hangs keeps its place, "
            "and a stop waits for it; give its calls timeouts of their own, or take prefork"
        )
    elif soft and lane.pool not in SOFT_LIMIT_POOLS:
        warnings.append(f"the pool {lane.pool} ignores the soft time limit of {soft:g} s; only prefork has it")
    if soft and hard and soft >= hard and lane.pool == "prefork":
        warnings.append(
            f"the soft time limit of {soft:g} s is not below the hard one of {hard:g} s, which Celery then forgets "
            "until the soft one has passed; give the lane both"
        )
    grace, reason, without = stop_grace(conf, lane, [own for queue in queues for own in longest.get(queue, ())])
    return WorkerPlan(
        name=name,
        lanes=(),
        queues=queues,
        pool=lane.pool,
        concurrency=concurrency,
        prefetch=lane.prefetch,
        time_limit=lane.time_limit if lane.pool in HARD_LIMIT_POOLS else None,
        soft_time_limit=soft if lane.pool in SOFT_LIMIT_POOLS and soft != conf.task_soft_time_limit else None,
        max_tasks_per_child=lane.max_tasks_per_child if lane.pool == "prefork" else None,
        stop_grace=grace,
        why=(why, reason),
        warnings=(*warnings, *without),
    )


def _size(lane: Lane, cores: int) -> tuple[int, str]:
    """Return how many tasks run at once, and why."""
    of = f"{cores} core{'' if cores == 1 else 's'}"
    if lane.pool == "solo":
        return 1, "concurrency 1: the pool solo runs one task at a time"
    if lane.concurrency:
        return lane.concurrency, f"concurrency {lane.concurrency}: as the settings say"
    if lane.pool == "threads":
        number = cores * THREADS_PER_CORE
        return number, f"concurrency {number}: {THREADS_PER_CORE} threads for each of {of}, as they wait (4 to 10 do)"
    if lane.pool in ("gevent", "eventlet"):
        return GREENLETS, (
            f"concurrency {GREENLETS}: greenlets cost next to nothing (100 to 1000 do), but one that uses the database "
            "has a connection of its own"
        )
    if lane.work == "io":
        number = cores * PROCESSES_PER_CORE
        return number, (
            f"concurrency {number}: {PROCESSES_PER_CORE} processes for each of {of}, as they wait; more cost memory, "
            "threads do not"
        )
    return cores, f"concurrency {cores}: a process for each of {of}, as more would only take turns"


def _queues_of(app: Celery) -> tuple[str, ...]:
    """Return the declared queues, and not those that Celery adds when something is sent elsewhere."""
    conf: Any = app.conf
    declared = conf.task_queues or [conf.task_default_queue]
    return tuple(sorted(getattr(queue, "name", queue) for queue in declared))


def _undivided(app: Celery, cores: int, longest: Mapping[str, Sequence[OwnLimit]]) -> WorkerPlan:
    """Return the one worker of a project without lanes."""
    conf: Any = app.conf
    pool = "prefork" if conf.worker_pool in _OTHER_NAMES_OF_PREFORK else conf.worker_pool
    known = isinstance(pool, str) and pool in POOLS
    lane = Lane(pool=pool if known else "prefork", concurrency=conf.worker_concurrency or None)
    return replace(_planned(app, "worker", _queues_of(app), lane, cores, longest), pool=str(pool))
