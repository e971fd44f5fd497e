"""``manage.py taskkit list``: which dead letters there are, one by one or by what they died of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import chain, islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Count, Max, Min
from django.utils import timezone

from django_taskkit.base_tasks.verdicts import Permanent
from django_taskkit.dlq.models import DeadLetter, Reason, Status
from django_taskkit.dlq.selection import Selection, newest_first
from django_taskkit.management.filters import add_filters, selection_of
from django_taskkit.management.terminal import counted, output, table

HELP = "List dead letters, the latest first; with --groups, the failures that they died of, the most frequent first."

LIMIT = 50

SAYS_MORE = (Reason.PERMANENT, Reason.DEADLINE)
"""Reasons that are shown beside the exception, which may be any."""

PERMANENT_CLASS = f"{Permanent.__module__}.{Permanent.__qualname__}"

GROUP_LENGTH = 12
"""Characters of a fingerprint that are shown; ``--group`` takes as many as tell groups apart."""

FACTS = (
    "task_id",
    "task_name",
    "status",
    "reason",
    "exception_class",
    "exception_message",
    "queue",
    "fingerprint",
    "attempts",
    "body_ran",
    "requeue_count",
    "died_at",
    "root_id",
    "parent_id",
    "group_id",
    "worker",
    "release",
)
"""What JSON says of a dead letter, besides its message."""


def add_arguments(parser: CommandParser) -> None:
    add_filters(parser)
    parser.add_argument("--groups", action="store_true", help="count them by what they died of")
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--limit", type=int, default=LIMIT, metavar="N", help=f"lines at most; default: {LIMIT}")
    many.add_argument("--all", action="store_true", help="no limit")
    parser.add_argument("--json", action="store_true", help="JSON Lines, one object for each line")


def handle(command: BaseCommand, **options: Any) -> None:
    if options["limit"] < 1:
        raise CommandError(f"--limit is {options['limit']}; give a whole number, 1 or more, or --all.", returncode=2)
    selection = selection_of(options)
    listing = GROUPS if options["groups"] else LETTERS if selection.status else LETTERS_OF_ANY_STATUS
    items = Counted(islice(listing.read(selection), None if options["all"] else options["limit"]))
    with output(command) as out:
        if options["json"]:
            for item in items:
                out.json(listing.facts(item))
                if out.closed:
                    return
        else:
            rows = iter(map(listing.cells, items))
            first = next(rows, None)
            if first is not None:
                table(out, listing.heads, chain([first], rows), listing.whole)
    if not (options["json"] or out.closed):
        _say_the_rest(command, selection, listing, items.count, full=items.count == options["limit"])


def _say_the_rest(command: BaseCommand, selection: Selection, listing: Listing, count: int, full: bool) -> None:
    """Say on standard error what the list leaves out; the list itself may go into a file."""
    if not count:
        command.stderr.write("No dead letter matches.", lambda text: text)
    elif full and (total := listing.total(selection)) > count:
        command.stderr.write(f"{count} of {counted(total, listing.noun)}; --all lists them all.", lambda text: text)
    if revoked := selection.hidden():
        was = "was" if revoked == 1 else "were"
        text = (
            f"{counted(revoked, 'task')} that {was} revoked {'is' if revoked == 1 else 'are'} left out; see --revoked."
        )
        command.stderr.write(text, lambda text: text)


class Counted:
    """An iterable that knows how many items it has given."""

    def __init__(self, items: Iterable[Any]) -> None:
        self._items = items
        self.count = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self.count += 1
            yield item


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What is listed, and how it looks."""

    noun: str
    heads: tuple[str, ...]
    whole: tuple[int, ...]
    """Columns that are never cut: what the next command needs."""
    read: Callable[[Selection], Iterable[Any]]
    total: Callable[[Selection], int]
    cells: Callable[[Any], list[str]]
    facts: Callable[[Any], dict[str, Any]]


def read_letters(selection: Selection) -> Iterable[DeadLetter]:
    return newest_first(selection.queryset().only(*FACTS))


def letter_facts(row: DeadLetter) -> dict[str, Any]:
    """Return what JSON says of a dead letter: no argument, no traceback."""
    return {name: getattr(row, name) for name in FACTS} | {"died_at": row.died_at.isoformat()}


def _letter_cells(row: DeadLetter) -> list[str]:
    held = "held: " if row.status == Status.HELD else ""
    return [row.task_id, age(row.died_at), row.task_name or "-", held + what_happened(row)]


def _letter_cells_with_status(row: DeadLetter) -> list[str]:
    task_id, died, task, why = _letter_cells(row)
    return [task_id, died, row.status, task, why.removeprefix("held: ")]


def what_happened(row: DeadLetter) -> str:
    """Return the exception in one line, or the reason where there is none."""
    said = row.reason if row.reason in SAYS_MORE and row.exception_class != PERMANENT_CLASS else ""
    text = ": ".join(filter(None, [said, row.exception_class.rpartition(".")[2], row.exception_message[:500]]))
    return " ".join(text.split()) or row.reason


def read_groups(selection: Selection) -> Iterable[dict[str, Any]]:
    found = selection.queryset().values("fingerprint")
    found = found.annotate(
        count=Count("pk"),
        first=Min("died_at"),
        last=Max("died_at"),
        # The same in all of a group, but for rows without a fingerprint.
        task_name=Max("task_name"),
        exception_class=Max("exception_class"),
        reason=Max("reason"),
    )
    return (dict(group) for group in found.order_by("-count", "fingerprint").iterator())


def count_groups(selection: Selection) -> int:
    return selection.queryset().order_by().values("fingerprint").distinct().count()


def _group_cells(group: dict[str, Any]) -> list[str]:
    return [
        str(group["count"]),
        group["fingerprint"][:GROUP_LENGTH] or "-",
        age(group["last"]),
        age(group["first"]),
        group["task_name"] or "-",
        group["exception_class"] or group["reason"],
    ]


def _group_facts(group: dict[str, Any]) -> dict[str, Any]:
    return {**group, "first": group["first"].isoformat(), "last": group["last"].isoformat()}


def age(when: datetime) -> str:
    """Return how long ago ``when`` was, as ``--since`` takes it: 45s, 12m, 3h, 5d."""
    seconds = max(0, int((timezone.now() - when).total_seconds()))
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


LETTERS = Listing(
    noun="dead letter",
    heads=("TASK ID", "DIED", "TASK", "WHAT HAPPENED"),
    whole=(0, 1),
    read=read_letters,
    total=lambda selection: selection.queryset().count(),
    cells=_letter_cells,
    facts=letter_facts,
)
LETTERS_OF_ANY_STATUS = replace(
    LETTERS,
    heads=("TASK ID", "DIED", "STATUS", "TASK", "WHAT HAPPENED"),
    whole=(0, 1, 2),
    cells=_letter_cells_with_status,
)
GROUPS = Listing(
    noun="group",
    heads=("COUNT", "GROUP", "LAST", "FIRST", "TASK", "EXCEPTION"),
    whole=(0, 1, 2, 3),
    read=read_groups,
    total=count_groups,
    cells=_group_cells,
    facts=_group_facts,
)
