"""``manage.py taskkit workers``: the files that start a worker for each lane, beat and the relay."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentTypeError
from contextlib import suppress
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app.utils import find_app
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_taskkit import conf
from django_taskkit.dlq.calls import task_of
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import ConfigurationError, NoAppError
from django_taskkit.management.terminal import output, shown
from django_taskkit.observability.health.files import VARIABLE
from django_taskkit.routing import formats
from django_taskkit.routing.processes import (
    Place,
    Process,
    beat_process,
    has_schedule,
    relay_process,
    worker_process,
)
from django_taskkit.routing.workers import plain_name, worker_plans

HELP = "Write the command lines of the workers, one for each lane, and of beat and relay, for what will run them."

_SETTINGS = "DJANGO_SETTINGS_MODULE"

_NAMES_OF_APPS = ("app", "celery_app", "celery", "application")


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--format", choices=formats.FORMATS, default="shell", help="what will run them; default: shell")
    parser.add_argument(
        "--lane", nargs="+", default=[], metavar="NAME", help="the workers of these lanes, and no other"
    )
    parser.add_argument("--app", help="what `celery -A` takes; default: where the project's app was found")
    parser.add_argument(
        "--cores", type=number_of_cores, help="of the machine that will run them; default: those of this one"
    )
    parser.add_argument(
        "--no-beat", action="store_true", help="without beat; it is left out too if nothing is scheduled"
    )
    parser.add_argument("--no-relay", action="store_true", help="without the relay, which sends what is in the outbox")
    parser.add_argument("--name", help="the first part of services' names; default: the project's package")
    parser.add_argument("--python", help="the interpreter; default: this one, and `python` where an image has its own")
    parser.add_argument(
        "--directory", help="where manage.py is; default: here, and what an image says where there is one"
    )
    parser.add_argument("--user", default="", help="who they run as, for systemd, supervisor and compose")
    parser.add_argument("--image", default="", help="the image, for compose and k8s; default: the name")
    parser.add_argument("--env-file", default="", help="a file with NAME=value lines, for systemd and compose")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write files there, instead of printing them")
    parser.add_argument("--force", action="store_true", help="with --output: write over files that are different")


def handle(command: BaseCommand, **options: Any) -> None:
    try:
        app = project_app()
        task_of(app, "")  # imports the modules with tasks, whose limits decide how long a stop takes
        name = options["app"] or name_of(app)
        processes = _processes(app, name, options)
        texts = formats.files(options["format"], processes, _place(name, options))
    except (ConfigurationError, NoAppError) as exc:
        raise CommandError(str(exc)) from exc
    for process in processes:
        for warning in process.warnings:
            command.stderr.write(shown(f"{process.name}: {warning}"))
    if options["output"] is None:
        _print(command, texts)
    else:
        _write(command, texts, options["output"], force=options["force"])


def _processes(app: Celery, name: str, options: dict[str, Any]) -> list[Process]:
    plans = worker_plans(app, cores=options["cores"])
    if asked := set(options["lane"]):
        known = {lane: plan for plan in plans for lane in plan.lanes}
        if unknown := sorted(asked - known.keys()):
            there = f"there are {', '.join(known)}" if known else "this project has none"
            raise CommandError(f"There is no lane {unknown[0]!r}; {there}.")
        return [worker_process(plan, name) for plan in plans if asked.intersection(plan.lanes)]
    processes = [worker_process(plan, name) for plan in plans]
    if has_schedule(app) and not options["no_beat"]:
        processes.append(beat_process(name, leased=conf.current().beat_lock != "off"))
    if not options["no_relay"]:
        processes.append(relay_process())
    return processes


def _place(name: str, options: dict[str, Any]) -> Place:
    in_image = formats.runs_in_image(options["format"])
    project = plain_name(options["name"] or name.partition(":")[0].partition(".")[0])
    environment = {_SETTINGS: settings} if (settings := os.environ.get(_SETTINGS)) else {}
    if health_dir := conf.current().health_dir:
        environment[VARIABLE] = health_dir  # the probe does not read the settings
    return Place(
        project=project,
        python=options["python"] or ("python" if in_image else sys.executable),
        directory=options["directory"] or ("" if in_image else os.getcwd()),
        user=options["user"],
        image=options["image"],
        env_file=options["env_file"],
        environment=environment,
    )


def name_of(app: Celery) -> str:
    """Return what ``celery -A`` takes for ``app``: the project's package as a rule, else module and name."""
    package = os.environ.get(_SETTINGS, "").partition(".")[0]
    for candidate in filter(None, (package, f"{package}.celery")):
        with suppress(Exception):  # whatever the import of a module that is no app's raises
            if find_app(candidate) is app:
                return candidate
    found = [
        f"{module}:{name}"
        for module, contents in list(sys.modules.items())
        for name in _NAMES_OF_APPS
        if module != "__main__" and getattr(contents, "__dict__", {}).get(name) is app
    ]
    if found:  # rather where it is made than where it is used
        return min(found, key=lambda path: ("celery" not in path.partition(":")[0], len(path), path))
    raise CommandError("It can't be told where the Celery app is; say what `celery -A` takes: --app proj")


def _print(command: BaseCommand, texts: dict[str, str]) -> None:
    with output(command) as out:
        for number, (file, text) in enumerate(texts.items()):
            if len(texts) > 1:
                out.line(f"{chr(10) if number else ''}# --- {file} ---")
            out.line(text.removesuffix("\n"))


def _write(command: BaseCommand, texts: dict[str, str], folder: Path, *, force: bool) -> None:
    """Write the files; all of them, or none if one is there that says something else."""
    different = [file for file, text in texts.items() if _differs(folder / file, text)]
    if different and not force:
        raise CommandError(
            f"{folder / different[0]} is there and says something else; look at it, then say --force to write over it."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
            if text.startswith("#!"):
                (folder / file).chmod(0o755)
    except OSError as exc:
        raise CommandError(f"The files can't be written: {exc}") from exc
    command.stdout.write("\n".join(str(folder / file) for file in texts))


def _differs(path: Path, text: str) -> bool:
    try:
        return path.read_text(encoding="utf-8") != text
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, UnicodeDecodeError):
        return True


def number_of_cores(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is no number of cores; give a whole number, 1 or more")
    return int(text)
