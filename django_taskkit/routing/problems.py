"""What is wrong with where tasks are sent, as far as settings and tasks say; for ``check`` and ``taskkit routes``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from celery import Celery

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.declaring import dead_letter_queues
from django_taskkit.routing.explain import Route, explain, has_own_priority, known_queues, own_tasks
from django_taskkit.routing.lane import declared_lanes
from django_taskkit.routing.queues import by_queue


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong. All texts are whole sentences."""

    id: str
    """That of the system check: ``taskkit.E...`` where messages can't be sent, ``taskkit.W...`` where nobody may read.

    E030: no such queue. E031: TASKKIT_LANES is broken. E032: Celery did not get what lanes() made. W060: no lane has
    the queue. W061: a router fails. W062: priorities of lanes don't count. W063: dead messages are not taken in.
    """

    text: str
    hint: str
    task: str = ""
    """The task that it is about; empty: all of them."""

    queue: str = ""


def problems(app: Celery) -> list[Problem]:
    """Return what is wrong; looks at the tasks that this process has imported, and connects to nothing."""
    try:
        known = known_queues(app)
    except ConfigurationError as exc:
        hint = "Let django_taskkit.routing.lanes() make it, and change what it returns."
        return [Problem(id="taskkit.E031", text=f"{exc}.", hint=hint)]
    names = own_tasks(app)
    found = [*_of_lanes(app), *_of_default(app, known)]
    found += [problem for route in explain(app, names) if (problem := problem_of(app, route, known))]
    found += [problem for name in names for problem in _of_retries(app, name, known)]
    if any(lane.priority for lane in declared_lanes().values()):
        found += [_of_priority(app, name) for name in names if has_own_priority(app, app.tasks[name])]
    return [*found, *_of_schedule(app, known)]


def problem_of(app: Celery, route: Route, known: set[str]) -> Problem | None:
    """Return what is wrong with one task's route; ``known`` are the queues that somebody is meant to read."""
    if route.error:
        sent = "missing from task_queues" in route.error or not route.error.startswith("the router")
        return Problem(
            id="taskkit.E030" if sent else "taskkit.W061",
            text=f"The task {route.task} can't be sent, by {route.rule}: {route.error}.",
            hint="Correct the rule, or add a lane with that queue."
            if sent
            else "A router must take a task without arguments as well: chains, schedules and retries send those.",
            task=route.task,
        )
    return _unread(app, route.queue, known, f"The task {route.task} goes, by {route.rule}, to", task=route.task)


def _unread(app: Celery, queue: str, known: set[str], what: str, *, task: str = "") -> Problem | None:
    if not known or queue in known:
        return None
    if queue not in app.amqp.queues and not app.conf.task_create_missing_queues:
        return Problem(
            id="taskkit.E030",
            text=f"{what} the queue {queue!r}, which is not in task_queues: Celery refuses to send it.",
            hint="Add a lane with that queue, or correct the name.",
            task=task,
            queue=queue,
        )
    lanes = bool(declared_lanes())
    missing = "which no lane has: no lane's worker reads it" if lanes else "which is not in task_queues"
    return Problem(
        id="taskkit.W060",
        text=f"{what} the queue {queue!r}, {missing}.",
        hint="Add a lane with that queue, or correct the name."
        if lanes
        else "Add it to task_queues, or correct the name; as it is, only a worker reads it that is started with -Q.",
        task=task,
        queue=queue,
    )


def _of_lanes(app: Celery) -> Iterator[Problem]:
    lanes = declared_lanes()
    queues: Mapping[str, Any] = app.amqp.queues
    for queue, names in by_queue(lanes).items():
        if queue not in queues:
            yield Problem(
                id="taskkit.E032",
                text=f"The queue {queue!r} of the lane {names[0]!r} is not in Celery's task_queues.",
                hint="Give lanes() the namespace with which the app reads the settings, and let nothing behind it "
                "set task_queues anew.",
                queue=queue,
            )
    if any(lane.priority for lane in lanes.values()) and app.conf.task_default_priority is not None:
        yield Problem(
            id="taskkit.W062",
            text=f"task_default_priority={app.conf.task_default_priority!r} wins over the priorities of the lanes.",
            hint="Take it out: lanes() gives every lane a priority, and the lane default takes the rest.",
        )
    if lanes:
        yield from _of_dead_letters(app)


def _of_dead_letters(app: Celery) -> Iterator[Problem]:
    try:
        taken_in = conf.current().intake_queues
    except ConfigurationError:
        return  # taskkit.E001 says why
    for queue in dead_letter_queues(app):
        if queue.name not in taken_in:
            yield Problem(
                id="taskkit.W063",
                text=f"RabbitMQ puts dead messages into the queue {queue.name!r}, and nobody takes them in.",
                hint=f'Set TASKKIT = {{"INTAKE_QUEUES": ["{queue.name}"]}}: a relay makes dead letters of them.',
                queue=queue.name,
            )


def _of_default(app: Celery, known: set[str]) -> Iterator[Problem]:
    if problem := _unread(app, app.conf.task_default_queue, known, "Tasks that no rule fits go to"):
        yield problem


def _of_retries(app: Celery, name: str, known: set[str]) -> Iterator[Problem]:
    queue = getattr(app.tasks[name], "retry_queue", None)
    if isinstance(queue, str) and queue:
        problem = _unread(app, queue, known, f"Retries of the task {name} go, by its retry_queue, to", task=name)
        if problem:
            yield problem


def _of_priority(app: Celery, name: str) -> Problem:
    task: Any = app.tasks[name]
    return Problem(
        id="taskkit.W062",
        text=f"The task {name} has priority={task.priority!r} of its own, which wins over the priorities of the lanes.",
        hint="Take it out, and put the task into a lane with the priority that it should have.",
        task=name,
    )


def _of_schedule(app: Celery, known: set[str]) -> Iterator[Problem]:
    """Look at ``beat_schedule``; what a database scheduler keeps in its tables is not known here."""
    schedule: Any = app.conf.beat_schedule or {}
    for entry, what in schedule.items() if isinstance(schedule, Mapping) else ():
        options = what.get("options") if isinstance(what, Mapping) else getattr(what, "options", None)
        queue = (options or {}).get("queue") if isinstance(options, Mapping) else None
        if isinstance(queue, str) and queue:
            problem = _unread(app, queue, known, f"The entry {entry!r} of beat_schedule goes, by its options, to")
            if problem:
                yield problem
