"""``manage.py taskkit routes``: which rule sends a task where, and who would take it."""

from __future__ import annotations

import difflib
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery
from django.core.management.base import BaseCommand, CommandError

from django_taskkit.dlq.calls import task_of
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import BrokerUnreachableError, ConfigurationError, NoAppError
from django_taskkit.management.filters import seconds
from django_taskkit.management.terminal import Output, counted, output, shown, table
from django_taskkit.observability import queues, workers
from django_taskkit.routing.explain import Route, explain, known_queues, own_tasks
from django_taskkit.routing.problems import Problem, problem_of, problems

HELP = "Show which rule sends a task where, with which priority, and who takes it; find tasks that nobody would take."

TIMEOUT = 2.0
"""Seconds in which workers answer."""

HEADS = ("TASK", "QUEUE", "LANE", "PRIORITY", "RULE", "SENT TO")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "tasks", nargs="*", metavar="TASK", help="the name of a task, also of one that is not there; may hold *"
    )
    parser.add_argument("--live", action="store_true", help="ask the workers and the broker who reads which queue")
    parser.add_argument(
        "--timeout", type=_timeout, default=TIMEOUT, metavar="TIME", help=f"for their answers; default: {TIMEOUT:g}s"
    )
    parser.add_argument("--json", action="store_true", help="a line of JSON for each task, queue (--live) and problem")


def _timeout(text: str) -> float:
    if not (length := seconds(text)):
        raise ArgumentTypeError(f"{text!r} is no time to answer in; give more than 0 seconds")
    return length


def handle(command: BaseCommand, **options: Any) -> None:
    try:
        app = project_app()
        task_of(app, "")  # imports the modules with tasks
        names = _chosen(app, options["tasks"]) if options["tasks"] else own_tasks(app)
        routes = explain(app, names)
        found = _problems(app, routes, named=bool(options["tasks"]))
    except (NoAppError, ConfigurationError) as exc:
        raise CommandError(str(exc)) from exc
    readers: dict[str, list[str]] | None = None
    if options["live"]:
        try:
            readers, unread = _live(app, _read_queues(app, routes, bool(options["tasks"])), options["timeout"])
        except BrokerUnreachableError as exc:
            raise CommandError(str(exc)) from exc
        found += unread
    with output(command) as out:
        if options["json"]:
            _write_json(out, routes, found, readers)
        else:
            _write(out, app, routes, found, readers)
    if found:
        raise CommandError(f"{counted(len(found), 'problem')} found.")


def _problems(app: Celery, routes: list[Route], *, named: bool) -> list[Problem]:
    if not named:
        return problems(app)
    known = known_queues(app)
    return [problem for route in routes if (problem := problem_of(app, route, known))]


def _read_queues(app: Celery, routes: list[Route], named: bool) -> list[str]:
    """Return the queues that somebody has to read: where the tasks go, and all that are declared."""
    wanted = [route.queue for route in routes if route.queue]
    if not named:
        wanted += [*sorted(known_queues(app)), app.conf.task_default_queue]
    return list(dict.fromkeys(wanted))


def _live(app: Celery, names: list[str], timeout: float) -> tuple[dict[str, list[str]], list[Problem]]:
    readers: dict[str, list[str]] = {name: [] for name in names}
    for worker in workers.ask(app, timeout=timeout):
        for queue in worker.queues:
            readers.setdefault(queue, []).append(worker.hostname)
    found = []
    for state in queues.look(app, names, timeout=max(timeout, 5)):
        # RabbitMQ knows of consumers that are busy, or no workers; elsewhere only the workers can tell.
        if readers[state.name] or state.consumers or (state.consumers is None and not workers.can_ask(app)):
            continue
        waiting = f"; {counted(state.depth, 'message')} waiting" if state.depth else ""
        found.append(
            Problem(
                id="",
                text=f"Nobody reads the queue {state.name!r}{waiting}.",
                hint="Start the worker of its lane: manage.py taskkit workers shows how.",
                queue=state.name,
            )
        )
    return readers, found


def _chosen(app: Celery, patterns: Iterable[str]) -> list[str]:
    names: dict[str, None] = {}
    for pattern in patterns:
        if not pattern.strip():
            raise CommandError(f"{pattern!r} is no task's name; without a name, all are shown.")
        if "*" not in pattern:
            names[pattern] = None
            continue
        found = [name for name in own_tasks(app) if fnmatchcase(name, pattern)]
        if not found:
            raise CommandError(f"No task of this project fits {pattern!r}; without a name, all are shown.")
        names.update(dict.fromkeys(found))
    return list(names)


def _write(
    out: Output, app: Celery, routes: list[Route], found: list[Problem], readers: Mapping[str, list[str]] | None
) -> None:
    if not routes:
        out.line("This project has no tasks.")
    elif readers is None:
        table(out, HEADS, (_row(route) for route in routes), whole=(0, 1))
    else:
        rows = ([*_row(route), _readers(readers.get(route.queue, []))] for route in routes)
        table(out, (*HEADS, "READ BY"), rows, whole=(0, 1))
    for route in routes:
        if not route.registered:
            out.line()
            out.line(shown(_unregistered(app, route.task)))
    for problem in found:
        out.line()
        out.line(shown(f"{problem.text} ({problem.id})" if problem.id else problem.text))
        out.line(shown(f"  {problem.hint}"))


def _row(route: Route) -> list[str]:
    priority = "" if route.priority is None else f"{route.priority} ({route.priority_name or 'no name'})"
    sent_to = f"{route.exchange}, {route.routing_key}" if route.exchange else "the queue"
    return [
        route.task,
        route.queue or "?",
        ", ".join(route.lanes) or "-",
        priority or "-",
        route.rule,
        "-" if route.error else sent_to,
    ]


def _readers(names: list[str]) -> str:
    return ", ".join(sorted(names)) or "nobody that answers"


def _unregistered(app: Celery, name: str) -> str:
    known = own_tasks(app)
    last = name.rpartition(".")[2]
    near = [known_name for known_name in known if known_name.rpartition(".")[2] == last]
    near += [match for match in difflib.get_close_matches(name, known, n=3) if match not in near]
    guess = f" Did you mean {' or '.join(near[:3])}?" if near else ""
    return f"There is no task {name!r} in this project; only its name was looked at.{guess}"


def _write_json(
    out: Output, routes: list[Route], found: list[Problem], readers: Mapping[str, list[str]] | None
) -> None:
    for route in routes:
        out.json({"kind": "route", **asdict(route)})
    for name, hostnames in (readers or {}).items():
        out.json({"kind": "queue", "queue": name, "read_by": sorted(hostnames)})
    for problem in found:
        out.json({"kind": "problem", **asdict(problem)})
