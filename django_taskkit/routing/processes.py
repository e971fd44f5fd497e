"""The processes of a project that has tasks: a worker for each lane, beat, and the relay."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from celery import Celery

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.workers import WorkerPlan

BEAT_STOP_GRACE = 30
"""Seconds for beat to write its schedule and end."""

RELAY_STOP_GRACE = 60
"""Seconds for the relay to end; with the broker away, the message it is sending takes half a minute."""

PROBE = ("-m", "django_taskkit.observability.health")
"""What Python is given to ask how a process is; ``manage.py taskkit health`` does the same, but loads all of Django."""

_FILE_SCHEDULER = "celery.beat:PersistentScheduler"


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process that somebody has to start, watch and stop."""

    name: str
    """``worker-LANE``, ``beat`` or ``relay``; without lanes ``worker``."""

    arguments: tuple[str, ...]
    """What follows the Python interpreter."""

    stop_grace: int
    """Seconds between TERM and KILL."""

    role: str
    """What the probe is asked for: ``worker``, ``beat`` or ``relay``."""

    queues: tuple[str, ...] = ()
    """What a worker has to consume."""

    single: bool = False
    """Whether one is enough: beat. A second one waits for its lease, or, without leases, sends everything once more."""

    why: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the processes are going to run.

    Raises:
        ConfigurationError: a value holds a line end or another control character, which would end up as a line of
            its own in somebody's unit file.
    """

    project: str
    """The first part of the names of services and files."""

    python: str
    """The interpreter: an absolute path, or ``python`` where an image says which."""

    directory: str = ""
    """Where ``manage.py`` is; empty: the image says so."""

    user: str = ""
    image: str = ""
    env_file: str = ""
    """A file with ``NAME=value`` lines, for secrets."""

    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {name: value for name, value in vars(self).items() if isinstance(value, str)} | self.environment
        for name, value in values.items():
            if not value.isprintable():
                raise ConfigurationError(f"{name} is {value!r}; leave out what can't be printed")


def worker_process(plan: WorkerPlan, app: str) -> Process:
    """Return the process of a lane's worker; ``app`` is what ``celery -A`` takes."""
    return Process(
        name=plan.name if plan.name == "worker" else f"worker-{plan.name}",
        arguments=plan.argv(app),
        stop_grace=plan.stop_grace,
        role="worker",
        queues=plan.queues,
        why=plan.why,
        warnings=plan.warnings,
    )


def beat_process(app: str, *, leased: bool = True) -> Process:
    """Return the process of beat; ``leased`` is whether ``BEAT_LOCK`` keeps a second one from sending."""
    second = (
        "one is enough: of several, one sends and the others stand by"
        if leased
        else 'one, and no more: BEAT_LOCK is "off", so two send everything twice'
    )
    return Process(
        name="beat",
        arguments=("-m", "celery", "-A", app, "beat", "--loglevel=INFO", "--pidfile="),
        stop_grace=BEAT_STOP_GRACE,
        role="beat",
        single=True,
        why=(second, "no pid file: one that a killed beat leaves behind keeps the next from starting"),
    )


def relay_process() -> Process:
    return Process(
        name="relay",
        arguments=("manage.py", "taskkit", "relay"),
        stop_grace=RELAY_STOP_GRACE,
        role="relay",
        why=("without it nothing leaves the outbox; a second one shares the work",),
    )


def has_schedule(app: Celery) -> bool:
    """Say whether beat has something to send: a schedule in the settings, or one kept elsewhere."""
    conf: Any = app.conf
    return bool(conf.beat_schedule) or conf.beat_scheduler != _FILE_SCHEDULER


def ready_probe(process: Process) -> tuple[str, ...]:
    """Return what Python is given to ask whether ``process`` does its work."""
    return (*PROBE, process.role, *(f"--queue={queue}" for queue in process.queues))


def alive_probe(process: Process) -> tuple[str, ...]:
    """Return what Python is given to ask whether a restart would help; with the broker away, it would not."""
    return (*PROBE, process.role, "--alive")


def comments(process: Process) -> Iterable[str]:
    """Return what a file says about a process, each a line that ends nowhere else."""
    for sentence in (*process.why, *(f"WARNING: {warning}" for warning in process.warnings)):
        printable = "".join(char if char.isprintable() else "?" for char in sentence)
        yield from textwrap.wrap(printable, 100, subsequent_indent="  ", break_long_words=False)
