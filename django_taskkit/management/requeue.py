"""``manage.py taskkit requeue``: put dead letters back, at once; a redrive does it slowly and stops when it should."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

from celery import Celery
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import QuerySet

from django_taskkit.dlq import requeue
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.preflight import Color, Preflight, in_batches
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import NoAppError
from django_taskkit.management import chosen
from django_taskkit.management.chosen import Chosen, Outcome
from django_taskkit.management.filters import coming, given, seconds
from django_taskkit.management.terminal import Output, shown

HELP = "Send the messages of dead letters again: the same ones, under the same task ids, with no retries used."

ABOUT_QUEUE = ("no_queue", "no_consumer", "queue")
"""Codes of what the preflight finds about where a message would go."""

LONGEST = timedelta(days=365).total_seconds()


def add_arguments(parser: CommandParser) -> None:
    chosen.add_arguments(parser, "requeue")
    how = parser.add_argument_group("how")
    how.add_argument("--to-queue", type=given, metavar="NAME", help="another queue than the one each came from")
    when = how.add_mutually_exclusive_group()
    when.add_argument("--countdown", type=seconds, metavar="SECONDS", help="let them run only after that: 90, 15m, 2h")
    when.add_argument("--not-before", type=coming, metavar="TIME", help="let them run only then: 2026-11-21T22:00, 2h")
    how.add_argument("--reset-results", action="store_true", help="forget their results; they are PENDING again")
    how.add_argument(
        "--force", action="store_true", help="with --status requeued: send again what was sent and got lost"
    )
    how.add_argument(
        "--even-if-ran", action="store_true", help="also tasks that had ended well and will do their work once more"
    )
    how.add_argument(
        "--despite-preflight", action="store_true", help="also messages that will die again, as far as can be told"
    )


def handle(command: BaseCommand, **options: Any) -> None:
    if (options["countdown"] or 0) > LONGEST:
        raise CommandError(f"--countdown is {options['countdown']:g} seconds; give a year at most.", returncode=2)
    try:
        app = project_app()
    except NoAppError as exc:
        raise CommandError(str(exc)) from exc
    preflight = None
    if not options["despite_preflight"]:
        preflight = Preflight(
            app, queue=options["to_queue"], force=options["force"], even_if_ran=options["even_if_ran"]
        )
    chosen.carry_out(
        command,
        options,
        verb="requeue",
        done="requeued",
        preview=partial(preview, preflight, options["json"]),
        warn=partial(warn_of_queue, command, preflight, options),
        run=partial(_requeue, app, preflight, _arguments(options)),
    )


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    names = ("countdown", "not_before", "reset_results", "force", "even_if_ran")
    said = {name: options[name] for name in names if options[name]}
    return {**said, "queue": options["to_queue"], "by": chosen.operator()}


def _requeue(
    app: Celery, preflight: Preflight | None, arguments: dict[str, Any], rows: QuerySet[DeadLetter], outcome: Outcome
) -> None:
    if preflight is not None:
        rows = rows.filter(pk__in=_passing(preflight, rows, outcome))
    report = requeue(rows, app=app, **arguments)
    outcome.done += report.requeued
    outcome.not_tried += report.not_tried
    outcome.add_refusals(report.refused)


def _passing(preflight: Preflight, rows: QuerySet[DeadLetter], outcome: Outcome) -> list[int]:
    passing = []
    for row in in_batches(rows):
        verdict = preflight.verdict(row)
        if verdict.color is Color.RED:
            outcome.refuse(row.task_id, f"preflight: {verdict.reasons[0]}")
        else:
            passing.append(row.pk)
    return passing


def warn_of_queue(command: BaseCommand, preflight: Preflight | None, options: dict[str, Any], chosen: Chosen) -> None:
    """Say so if nobody reads the queue of ``--to-queue``; what is sent to a misspelt one waits there for ever."""
    row = chosen.rows.first() if preflight is not None and options["to_queue"] else None
    if preflight is None or row is None:
        return
    for finding in preflight.verdict(row).findings:
        if finding.code in ABOUT_QUEUE:
            command.stderr.write(shown(finding.text), str)


def preview(preflight: Preflight | None, as_json: bool, out: Output, chosen: Chosen) -> None:
    """Say what the preflight finds."""
    if preflight is None or not chosen.count:
        return
    summary = preflight.summary(chosen.rows)
    if as_json:
        findings = [
            {"color": finding.color.value, "code": finding.code, "text": finding.text, "count": count}
            for finding, count in summary.findings.items()
        ]
        colors = {color.value: count for color, count in summary.colors.items()}
        out.json({"preflight": colors, "findings": findings})
        return
    colors_said = ", ".join(f"{count} {color.value}" for color, count in summary.colors.items())
    out.line(f"Preflight: {colors_said}; red ones are left out.")
    for finding, count in summary.findings.items():
        out.line(shown(f"  {finding.color.value}: {count} x {finding.text}"))
