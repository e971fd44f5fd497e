"""``manage.py taskkit probe``: try every way to die on the project's own broker, backend, pool and Celery."""

from __future__ import annotations

from typing import Any

import celery
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import NoAppError
from django_taskkit.probe.cases import ALL
from django_taskkit.probe.runner import Outcome, Probe, ProbeError, as_json

HELP = "Let harmless tasks die in every way there is, on a queue of their own, and see each captured and sent again."

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of any program in a shell."""

BACK = {"ran": "ran again", "sent": "sent again", "": "NO"}


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("--pool", choices=sorted(ALL), help="the worker's pool; by default the project's worker_pool")
    parser.add_argument("--app", default="", help="the Celery app, as in celery -A; found by itself as a rule")
    parser.add_argument(
        "--queue",
        default="",
        help="a queue that nobody reads, which is emptied; by default one made for the probe",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=120.0,
        help="seconds in which nothing more comes before the rest counts as missed",
    )
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")


def handle(command: BaseCommand, **options: Any) -> None:
    try:
        app = project_app()
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc
    pool = options["pool"] or app.conf.worker_pool
    if pool not in ALL:
        raise CommandError(f"worker_pool is {pool!r}; name one with --pool: {', '.join(sorted(ALL))}.")
    if options["timeout"] <= 0:
        raise CommandError(f"--timeout is {options['timeout']}; give a number of seconds above 0.")
    try:
        probe = Probe(app, pool=pool, queue=options["queue"], app_path=options["app"], timeout=options["timeout"])
        if not options["json"]:
            broker = app.connection_for_write().transport.driver_type
            command.stdout.write(
                f"{len(probe.outcomes)} ways to die: Celery {celery.__version__}, pool {pool}, {broker}, "
                f"queue {probe.queue}"
            )
            command.stdout.flush()
        with probe:
            outcomes = probe.run()
            log = probe.log_tail()
    except ProbeError as exc:
        raise CommandError(str(exc)) from exc
    except KeyboardInterrupt:
        raise CommandError(
            "Interrupted; the probe has ended its worker and cleaned up.", returncode=INTERRUPTED
        ) from None
    missed = [outcome for outcome in outcomes if not outcome.passed]
    if options["json"]:
        command.stdout.write(as_json(outcomes))
    else:
        _print_table(command, outcomes)
        command.stdout.write(f"{len(outcomes) - len(missed)} of {len(outcomes)} captured, and put back on the queue.")
    if missed:
        if not options["json"]:
            command.stderr.write(log)
        raise CommandError(f"Missed: {', '.join(outcome.case.name for outcome in missed)}.")


def _print_table(command: BaseCommand, outcomes: list[Outcome]) -> None:
    rows = [("CLASS", "WHAT HAPPENS", "EXPECTED", "CAPTURED", "REQUEUED")]
    rows += [
        (
            outcome.case.name,
            outcome.case.says,
            outcome.case.reason.value,
            outcome.found if outcome.captured else f"{outcome.found or 'NO'}{'' if outcome.intact else ' (changed)'}",
            BACK[outcome.back],
        )
        for outcome in outcomes
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row, outcome in zip(rows, [None, *outcomes], strict=True):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        command.stdout.write(line if outcome is None or outcome.passed else command.style.ERROR(line))
