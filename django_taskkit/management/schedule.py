"""``manage.py taskkit schedule``: know before production which outage a task's retries outlive."""

from __future__ import annotations

import difflib
from argparse import ArgumentTypeError
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

from celery import Celery
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_taskkit.base_tasks.survival import SAMPLES, SEED, survival_of
from django_taskkit.dlq.calls import task_of
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import ConfigurationError, NoAppError
from django_taskkit.management.filters import seconds
from django_taskkit.management.plot import Pen, pen_for
from django_taskkit.management.retry_plans import plans_of, remedy_for
from django_taskkit.management.schedule_report import Broker, Forecast, facts_of, write
from django_taskkit.management.terminal import Output, output

HELP = "Show when a task that keeps failing is retried, which outage it survives, and how many retries are wasted."

OUTAGES = (10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 86400.0)
"""Seconds of the outages that are shown where none is asked for."""


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="the name of a task; may hold *: 'orders.*'")
    parser.add_argument("--all", action="store_true", help="every task of the project that is retried by itself")
    parser.add_argument(
        "--outage",
        type=seconds,
        action="append",
        default=[],
        metavar="TIME",
        help="the odds of surviving an outage of that length: 90s, 10m, 6h; may be repeated",
    )
    parser.add_argument("--no-plot", action="store_true", help="the tables only")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each task and policy")
    parser.add_argument(
        "--samples", type=_count, default=SAMPLES, metavar="N", help=f"tasks to run through; default: {SAMPLES}"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="for other random numbers; the same gives the same")


def handle(command: BaseCommand, **options: Any) -> None:
    if bool(options["tasks"]) == options["all"]:
        raise CommandError("Name a task, or say --all: manage.py taskkit schedule orders.tasks.send", returncode=2)
    try:
        app = project_app()
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc
    task_of(app, "")  # imports the modules with tasks
    names = _retried(app) if options["all"] else _chosen(app, options["tasks"])
    try:
        broker = Broker(app)
    except (ImportError, KeyError) as exc:  # no client for it is installed here, or there is no such broker
        raise CommandError(f"The broker that the settings name can't be asked how long it holds delays: {exc}") from exc
    pen = None if options["no_plot"] else pen_for(getattr(command.stdout, "encoding", None) or "utf-8")
    failed: list[str] = []
    with output(command) as out:
        if not names:
            out.line("No task of this project is retried by itself; give it base=BaseTaskWithRetry.")
        for name in names:
            if out.closed:
                break
            try:
                _show(out, app, name, broker, pen, options)
            except ConfigurationError as exc:
                failed.append(str(exc))
    if failed:
        raise CommandError("\n".join(failed))


def _show(out: Output, app: Celery, name: str, broker: Broker, pen: Pen | None, options: dict[str, Any]) -> None:
    task = app.tasks[name]
    plans = plans_of(task)
    if not plans:
        if options["json"]:
            out.json({"task": name, "policy": None, "remedy": remedy_for(task)})
        else:
            out.line(remedy_for(task))
            out.line()
    outages = tuple(sorted(set(options["outage"])))
    for plan in plans:
        survival = None
        if plan.policy is not None:
            survival = survival_of(plan.policy, samples=options["samples"], seed=options["seed"])
        forecast = Forecast(name, plan, survival, outages or OUTAGES, bool(outages), broker)
        if options["json"]:
            out.json(facts_of(forecast))
        else:
            write(out, forecast, pen=pen, mark=outages[0] if outages else None)


def _retried(app: Celery) -> list[str]:
    return sorted(name for name in _own(app) if _is_retried(app.tasks[name]))


def _is_retried(task: Any) -> bool:
    try:
        return bool(plans_of(task))
    except ConfigurationError:
        return True  # and what is wrong with it is going to be said


def _chosen(app: Celery, patterns: Iterable[str]) -> list[str]:
    names: dict[str, None] = {}
    for pattern in patterns:
        if pattern in app.tasks:
            names[pattern] = None
            continue
        found = [name for name in sorted(_own(app)) if "*" in pattern and fnmatchcase(name, pattern)]
        if not found:
            raise CommandError(_unknown(app, pattern))
        names.update(dict.fromkeys(found))
    return list(names)


def _unknown(app: Celery, name: str) -> str:
    known = sorted(_own(app))
    last = name.rpartition(".")[2]
    near = [known_name for known_name in known if known_name.rpartition(".")[2] == last]
    near += [match for match in difflib.get_close_matches(name, known, n=3) if match not in near]
    if near:
        return f"There is no task {name!r}. Did you mean {' or '.join(near[:3])}?"
    if not known:
        return f"There is no task {name!r}; the app {app.main or 'of this project'} has none at all."
    return f"There is no task {name!r}; --all shows those that are retried by themselves."


def _own(app: Celery) -> list[str]:
    return [name for name in app.tasks if not name.startswith(("celery.", "taskkit."))]


def _count(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:12]) <= 1_000_000:
        return int(text)
    raise ArgumentTypeError(f"{text!r} makes no sense; give a number of tasks, from 1 to a million")
