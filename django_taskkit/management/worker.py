"""``manage.py taskkit worker LANE``: become the worker of a lane."""

from __future__ import annotations

import logging
import os
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connections

from django_taskkit.dlq.calls import task_of
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import ConfigurationError, NoAppError
from django_taskkit.management.terminal import output, shown
from django_taskkit.management.workers import name_of, number_of_cores
from django_taskkit.routing.workers import WorkerPlan, worker_plans

HELP = "Become the worker of a lane: this process turns into Celery's, and signals reach Celery itself."

_SUFFIX = re.compile(r"[A-Za-z0-9_-]+")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("lane", nargs="?", metavar="LANE", help="may be left out in a project without lanes alone")
    parser.add_argument("--app", help="what `celery -A` takes; default: where the project's app was found")
    parser.add_argument("--cores", type=number_of_cores, help="of this machine; default: those that it may use")
    parser.add_argument(
        "--suffix",
        default="",
        help="ends the node's name: a second worker of a lane on one host needs a name of its own",
    )
    parser.add_argument("--print", action="store_true", help="show the command line, for a shell, and start nothing")
    parser.usage = "%(prog)s [LANE] [options] [-- more options of `celery worker`]"
    _keep_what_is_for_celery(parser)


def _keep_what_is_for_celery(parser: CommandParser) -> None:
    """Put what stands behind ``--`` aside before argparse sees it, which would take it for the lane's name.

    As a last positional it would only be understood where no option stands between it and the lane.
    """
    parse = parser.parse_known_args

    def parse_known_args(args: Any = None, namespace: Any = None, **more: Any) -> Any:
        own = list(sys.argv[1:] if args is None else args)
        for_celery: list[str] = []
        if "--" in own:
            at = own.index("--")
            own, for_celery = own[:at], own[at + 1 :]
        parsed, unknown = parse(own, namespace, **more)
        parsed.for_celery = for_celery
        return parsed, unknown

    parser.parse_known_args = parse_known_args  # type: ignore[method-assign]


def handle(command: BaseCommand, **options: Any) -> None:
    if options["suffix"] and not _SUFFIX.fullmatch(options["suffix"]):
        raise CommandError(f"--suffix is {options['suffix']!r}; give letters, digits, - and _, as in 2.", returncode=2)
    try:
        app = project_app()
        task_of(app, "")  # imports the modules with tasks: what can't be imported is said here
        name = options["app"] or name_of(app)
        plan = _plan_of(options["lane"], worker_plans(app, cores=options["cores"]))
    except (ConfigurationError, NoAppError) as exc:
        raise CommandError(str(exc)) from exc
    if options["suffix"]:
        plan = replace(plan, node_suffix=f"-{options['suffix']}")
    arguments = [sys.executable, *plan.argv(name), *options["for_celery"]]
    environment = _environment(options.get("pythonpath"))
    if options["print"]:
        assignments = [f"{variable}={value}" for variable, value in environment.items()]
        with output(command) as out:
            out.line(shlex.join([*(["env", *assignments] if assignments else []), *arguments]))
        return
    for warning in plan.warnings:
        command.stderr.write(shown(f"{plan.name}: {warning}"))
    _become(arguments, environment)


def _plan_of(lane: str | None, plans: Sequence[WorkerPlan]) -> WorkerPlan:
    there = [name for plan in plans for name in plan.lanes]
    if lane is None and there:
        raise CommandError(f"Say which lane's worker; there are {', '.join(there)}.", returncode=2)
    for plan in plans:
        if lane is None or lane in plan.lanes:
            return plan
    raise CommandError(
        f"There is no lane {lane!r}; "
        + (f"there are {', '.join(there)}." if there else "this project has none: leave the name out.")
    )


def _environment(pythonpath: str | None) -> dict[str, str]:
    """Return what Celery needs in its environment to find the modules that are found here.

    ``manage.py`` finds those beside it wherever it is called from, and ``python -m celery`` those of this folder; with
    ``PYTHONSAFEPATH`` not even those.
    """
    paths = [pythonpath] if pythonpath else []
    program = Path(sys.argv[0])
    is_searched = program.resolve().parent == Path.cwd() and not getattr(sys.flags, "safe_path", False)
    if program.name == "manage.py" and not is_searched:
        paths.append(str(program.resolve().parent))
    if not paths:
        return {}
    return {"PYTHONPATH": os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])}


def _become(arguments: Sequence[str], environment: dict[str, str]) -> NoReturn:
    """Put Celery in the place of this process, which keeps its id; what was open here is closed first."""
    connections.close_all()
    logging.shutdown()  # what a handler has kept would be lost
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(arguments[0], list(arguments), {**os.environ, **environment})  # noqa: S606
