"""``manage.py taskkit purge``: delete what recovered, was discarded or has finished some time ago."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_taskkit.dlq import old_results, retention
from django_taskkit.dlq.models import Status
from django_taskkit.management.chosen import INTERRUPTED
from django_taskkit.management.filters import moment
from django_taskkit.management.progress import Progress
from django_taskkit.management.terminal import counted, output

HELP = (
    "Delete rows that recovered or were discarded TASKKIT['RETENTION_DAYS'] ago, with their history, and results of "
    "Django's tasks that finished then. "
    "Dead letters that wait are never deleted unless --status dead says so."
)


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "--older-than",
        type=moment,
        metavar="TIME",
        help="to which nothing has happened for that long, or since then: 30d, 2026-11-21; default: RETENTION_DAYS",
    )
    choices = [*retention.CLOSED, Status.DEAD]
    parser.add_argument(
        "--status",
        action="append",
        choices=[status.value for status in choices],
        metavar="STATUS",
        help="recovered, discarded or dead letters alone; may be repeated; default: the first two, and results",
    )
    parser.add_argument("--dry-run", action="store_true", help="say how many there are, and delete nothing")
    parser.add_argument("--yes", action="store_true", help="needed with --status dead")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")


def handle(command: BaseCommand, **options: Any) -> None:
    statuses = tuple(dict.fromkeys(options["status"] or [status.value for status in retention.CLOSED]))
    before = _before(options, statuses)
    rows = retention.purgeable(before, statuses)
    with_results = not options["status"]
    purged, interrupted = {"": 0, "_results": 0}, False
    with output(command) as out:
        if options["dry_run"]:
            name, text = "would_purge", "Would purge {}."
            purged = {"": rows.count(), "_results": old_results.purgeable(before) if with_results else 0}
        else:
            name, text = "purged", "Purged {}."
            total = rows.count() + (old_results.purgeable(before) if with_results else 0)
            with Progress(command.stderr, total) as progress:

                def advance(what: str, count: int) -> None:
                    purged[what] += count
                    progress.advance(count)

                try:
                    retention.purge(before, statuses, progress=partial(advance, ""))
                    if with_results:
                        old_results.purge(before, progress=partial(advance, "_results"))
                except KeyboardInterrupt:
                    interrupted = True
        if options["json"]:
            out.json({f"{name}{what}": count for what, count in purged.items()})
        else:
            out.line(text.format(_counted(purged[""], purged["_results"])))
    for warned in retention.warnings():
        command.stderr.write(f"{warned.text} {warned.hint}", command.style.WARNING)
    if interrupted:
        raise CommandError("Interrupted; what was purged stays purged.", returncode=INTERRUPTED)


def _counted(letters: int, results: int) -> str:
    """Name the results where there are any: most projects have none at all."""
    of_tasks = f" and {counted(results, 'result')} of Django's tasks" if results else ""
    return f"{counted(letters)}{of_tasks}"


def _before(options: dict[str, Any], statuses: tuple[str, ...]) -> datetime:
    if Status.DEAD in statuses:
        if options["older_than"] is None:
            raise CommandError(
                "--status dead needs --older-than: how old must a dead letter be to be deleted?", returncode=2
            )
        if not (options["yes"] or options["dry_run"]):
            raise CommandError(
                "--status dead deletes messages that nobody has dealt with; say --yes as well, or --dry-run.",
                returncode=2,
            )
    if options["older_than"] is not None:
        return options["older_than"]  # type: ignore[no-any-return]
    kept = retention.retention()
    if kept is None:
        raise CommandError("TASKKIT['RETENTION_DAYS'] is None; give --older-than, such as 30d.", returncode=2)
    return timezone.now() - kept
