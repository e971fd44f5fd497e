"""Which workers are there, as they say themselves: queues, pool, versions, and what time they have."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from celery import Celery

from django_taskkit.observability.queues import on_broker

COMMAND = "taskkit_report"
"""See ``worker.report_command``, which is not for processes that are no worker."""

POOLS = {"thread": "threads", "asynpool": "prefork"}
"""What ``--pool`` calls the pools whose module has another name."""


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """One worker that answered. All texts are the worker's own: escape them before they are shown.

    Of a worker without this app only name, queues, pool, concurrency and pid are known.
    """

    hostname: str
    """Its node name, such as ``celery@host``."""

    queues: tuple[str, ...] = ()
    """The queues that it reads, sorted."""

    pool: str = ""
    """As ``--pool`` calls it: ``prefork, threads, gevent, eventlet, solo``; empty: not known."""

    concurrency: int | None = None
    """Processes, threads or greenlets at work, at most."""

    pid: int | None = None

    celery_version: str = ""
    kombu_version: str = ""
    python_version: str = ""
    django_version: str = ""
    taskkit_version: str = ""
    """Empty: it does not have this app installed, or an older release of it."""

    release: str = ""
    """Its ``TASKKIT["RELEASE"]``."""

    clock_ahead: float | None = None
    """Seconds by which its clock is ahead of this process's; negative: behind. None: not known."""

    clock_error: float = 0.0
    """Seconds by which ``clock_ahead`` may be wrong at most: half the time that the answer took."""

    tasks: frozenset[str] | None = None
    """The names of the tasks it knows, without Celery's own; None: it was not asked."""


def ask(app: Celery, *, timeout: float = 2, tasks: bool = False) -> list[WorkerState]:
    """Return the workers that answer, sorted by name; ``tasks`` asks which tasks they know as well.

    Nobody knows how many there are, so it always takes the whole ``timeout`` (seconds), and at most as long again for
    workers without this app. A worker with the pool ``solo`` answers between two tasks only. Where messages can't be
    sent to all (Amazon SQS), nobody answers; see :func:`can_ask`.

    Raises:
        BrokerUnreachableError: no connection, or it broke.
    """
    if not can_ask(app):
        return []
    found: list[WorkerState] = on_broker(
        app, lambda connection: _asked(app, connection, timeout, tasks), timeout=timeout * 4 + 1
    )
    return sorted(found, key=lambda worker: worker.hostname)


def can_ask(app: Celery) -> bool:
    """Say whether the broker carries questions to all workers, which Celery's remote control needs."""
    transport = app.connection_for_read().transport
    return "fanout" in getattr(transport.implements, "exchange_type", ())


def _asked(app: Celery, connection: Any, timeout: float, tasks: bool) -> list[WorkerState]:
    found, strangers = [], []
    sent_at, started = time.time(), time.monotonic()
    answered: dict[str, float] = {}

    def note(reply: Mapping[str, Any]) -> None:
        answered.update(dict.fromkeys(reply, time.monotonic() - started))

    replies = app.control.broadcast(
        COMMAND, {"tasks": tasks}, connection=connection, reply=True, timeout=timeout, callback=note
    )
    for hostname, answer in _each(replies):
        if isinstance(answer.get("celery"), str):
            found.append(_of_report(hostname, answer, sent_at, answered.get(hostname, timeout)))
        else:
            strangers.append(hostname)
    return [*found, *_strangers(app, connection, strangers, timeout / 2, tasks)]


def _each(replies: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for reply in replies or ():
        for hostname, answer in reply.items():
            yield str(hostname), answer if isinstance(answer, Mapping) else {}


def _of_report(hostname: str, answer: Mapping[str, Any], sent_at: float, took: float) -> WorkerState:
    clock, known = answer.get("time"), answer.get("tasks")
    # It read its clock somewhere between question and answer.
    ahead = clock - (sent_at + took / 2) if isinstance(clock, float) else None
    return WorkerState(
        hostname=hostname,
        queues=tuple(sorted(map(str, answer.get("queues") or ()))),
        pool=str(answer.get("pool") or ""),
        concurrency=_number(answer.get("concurrency")),
        pid=_number(answer.get("pid")),
        celery_version=str(answer["celery"]),
        **{f"{name}_version": str(answer.get(name) or "") for name in ("kombu", "python", "django", "taskkit")},
        release=str(answer.get("release") or ""),
        clock_ahead=ahead,
        clock_error=took / 2,
        tasks=frozenset(map(str, known)) if isinstance(known, list) else None,
    )


def _strangers(app: Celery, connection: Any, names: list[str], timeout: float, tasks: bool) -> list[WorkerState]:
    """Ask the workers that don't know our command by Celery's own; it ends as soon as all have answered."""
    if not names:
        return []

    def answers(command: str) -> dict[str, Any]:
        replies = app.control.broadcast(
            command, destination=names, connection=connection, reply=True, timeout=timeout, limit=len(names)
        )
        return {str(hostname): answer for reply in replies or () for hostname, answer in reply.items()}

    queues, stats = answers("active_queues"), answers("stats")
    registered = answers("registered") if tasks else {}
    found = []
    for name in names:
        state = _of_stats(name, stats.get(name))
        if isinstance(read := queues.get(name), list):
            state = replace(state, queues=tuple(sorted(str(queue.get("name")) for queue in read)))
        if isinstance(known := registered.get(name), list):
            # Celery adds options behind the name.
            names_known = frozenset(str(task).partition(" ")[0] for task in known)
            state = replace(state, tasks=names_known)
        found.append(state)
    return found


def _of_stats(hostname: str, stats: Any) -> WorkerState:
    if not isinstance(stats, Mapping):
        return WorkerState(hostname=hostname)
    told = stats.get("pool")
    pool: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
    module = str(pool.get("implementation") or "").partition(":")[0].rpartition(".")[2]
    return WorkerState(
        hostname=hostname,
        pool=POOLS.get(module, module),
        concurrency=_number(pool.get("max-concurrency")),
        pid=_number(stats.get("pid")),
    )


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
