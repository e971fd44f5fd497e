"""``manage.py taskkit discard``: close dead letters without running them."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.db.models import QuerySet

from django_taskkit.dlq import discard
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.management import chosen
from django_taskkit.management.chosen import Outcome

HELP = "Close dead letters: their tasks will not run. The rows stay until they are purged, with who did it and why."


def add_arguments(parser: CommandParser) -> None:
    chosen.add_arguments(parser, "discard")
    how = parser.add_argument_group("how")
    how.add_argument("--note", default="", metavar="TEXT", help="why; kept in the history of each")
    how.add_argument("--force", action="store_true", help="with --status requeued: close what was sent and got lost")


def handle(command: BaseCommand, **options: Any) -> None:
    arguments = {"by": chosen.operator(), "note": options["note"], "force": options["force"]}
    chosen.carry_out(
        command,
        options,
        verb="discard",
        done="discarded",
        preview=lambda out, rows: None,
        run=partial(_discard, arguments),
    )


def _discard(arguments: dict[str, Any], rows: QuerySet[DeadLetter], outcome: Outcome) -> None:
    report = discard(rows, **arguments)
    outcome.done += report.discarded
    outcome.add_refusals(report.refused)
