"""What the verbs that change dead letters have in common: choose, ask, go through in chunks, say what was done."""

from __future__ import annotations

import getpass
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import router
from django.db.models import Count, Max, QuerySet

from django_taskkit.dlq.bulk.rows import key_chunks
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.selection import CHUNK, Selection
from django_taskkit.dlq.text import bounded
from django_taskkit.dlq.transitions import Refusal
from django_taskkit.management.filters import add_filters, is_narrowed, selection_of
from django_taskkit.management.progress import Progress
from django_taskkit.management.terminal import Output, confirm, counted, output, shown

INTERRUPTED = 130
"""The exit code after Ctrl-C, as of any program in a shell."""

UNKNOWN = "no dead letter with this id matches"

SHOWN_REASONS = 10
"""Different reasons that are shown; of a bulk action, there may be one for each row."""

_KEPT_REASONS = 1_000
"""Different reasons that are counted one by one."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Dead letters that the filters name; those that die from now on are not among them."""

    rows: QuerySet[DeadLetter]
    count: int
    missing: tuple[str, ...] = ()
    """Ids that were given, and that no row has."""


@dataclass
class Outcome:
    """What became of the chosen rows; of any number of refusals, only so many reasons are in memory."""

    out: Output
    as_json: bool
    done: int = 0
    refused: int = 0
    not_tried: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

    def refuse(self, task_id: str, reason: str) -> None:
        self.refused += 1
        if self.as_json:
            self.out.json({"task_id": task_id, "refused": reason})
        if reason not in self.reasons and len(self.reasons) >= _KEPT_REASONS:
            reason = "other reasons"
        self.reasons[reason] += 1
        self.examples.setdefault(reason, task_id)

    def add_refusals(self, refusals: tuple[Refusal, ...]) -> None:
        for row, reason in refusals:
            self.refuse(row.task_id, reason)


def add_arguments(parser: CommandParser, verb: str) -> None:
    add_filters(parser)
    parser.add_argument("--all", action="store_true", help=f"{verb} all of them, if no filter is given")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument("--yes", action="store_true", help="don't ask")
    parser.add_argument("--json", action="store_true", help="JSON Lines: one for each refusal, and the counts")


def choose(options: dict[str, Any]) -> tuple[Selection, Chosen]:
    """Return what the filters name.

    Raises:
        CommandError: no filter and no ``--all`` was given.
    """
    if not (is_narrowed(options) or options["all"]):
        raise CommandError("No filter is given; name what you mean, or say --all.", returncode=2)
    selection = selection_of(options)
    rows = selection.queryset().using(router.db_for_write(DeadLetter))
    facts = rows.aggregate(count=Count("pk"), last=Max("died_at"))
    missing: tuple[str, ...] = ()
    if selection.ids:
        there = set(rows.values_list("task_id", flat=True))
        missing = tuple(task_id for task_id in dict.fromkeys(selection.ids) if task_id not in there)
    if facts["last"] is not None:
        # What dies once more after its requeue is not sent again, and nobody was asked about what dies meanwhile.
        rows = rows.filter(died_at__lte=facts["last"])
    return selection, Chosen(rows=rows, count=facts["count"], missing=missing)


def say_left_out(command: BaseCommand, options: dict[str, Any], selection: Selection, chosen: Chosen) -> None:
    """Say on standard error which ids no row has, and that revoked tasks are not meant."""
    for task_id in chosen.missing:
        command.stderr.write(shown(f"{UNKNOWN}: {task_id}"), _unstyled)
    if not options["json"]:
        _say_hidden(command, selection)


def _say_hidden(command: BaseCommand, selection: Selection) -> None:
    if hidden := selection.hidden():
        command.stderr.write(f"Left out, since revoked: {counted(hidden, 'task')}; see --revoked.", _unstyled)


def operator() -> str:
    """Return who runs this command, for the history: ``cli:alice``."""
    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container may run as a number that no user has
        name = str(os.getuid())
    return bounded(f"cli:{name}")


def carry_out(
    command: BaseCommand,
    options: dict[str, Any],
    *,
    verb: str,
    done: str,
    preview: Callable[[Output, Chosen], None],
    warn: Callable[[Chosen], None] = lambda chosen: None,
    run: Callable[[QuerySet[DeadLetter], Outcome], None],
) -> None:
    """Choose, ask, and let ``run`` do a chunk after another; it adds to the outcome what it did.

    Args:
        verb: in the imperative: ``"requeue"``.
        done: in the past tense: ``"requeued"``.
        preview: prints what ``--dry-run`` adds to the count.
        warn: prints what is to be known before the question is answered.

    Raises:
        CommandError: something was refused or not tried (exit code 1), or the options make no sense (2).
    """
    selection, chosen = choose(options)
    with output(command) as out:
        outcome = Outcome(out, options["json"])
        for task_id in chosen.missing:
            outcome.refuse(task_id, UNKNOWN)
        if not options["json"]:
            _say_hidden(command, selection)
        if options["dry_run"]:
            if options["json"]:
                out.json({f"would_{verb}": chosen.count})
            else:
                out.line(f"Would {verb} {counted(chosen.count)}.")
            preview(out, chosen)
        elif chosen.count:
            warn(chosen)
            question = f"{verb.capitalize()} {counted(chosen.count)}?"
            confirm(question, yes=options["yes"], nothing=f"Nothing was {done}")
            _go_through(command, chosen, outcome, run)
        _report(command, out, chosen, outcome, done, options["dry_run"])
    if outcome.interrupted:
        raise CommandError(f"Interrupted; {counted(outcome.done)} or more were {done}.", returncode=INTERRUPTED)
    if outcome.refused or outcome.not_tried:
        raise CommandError(f"Refused: {outcome.refused}; not tried: {outcome.not_tried}.")


def _go_through(
    command: BaseCommand, chosen: Chosen, outcome: Outcome, run: Callable[[QuerySet[DeadLetter], Outcome], None]
) -> None:
    with _interruptible(outcome), Progress(command.stderr, chosen.count) as progress:
        for keys in key_chunks(chosen.rows, CHUNK):
            if outcome.not_tried:
                outcome.not_tried += len(keys)
            else:
                # With the filters, as a row may have changed since it was found.
                run(chosen.rows.filter(pk__in=keys), outcome)
            progress.advance(len(keys))


@contextmanager
def _interruptible(outcome: Outcome) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        outcome.interrupted = True


def _report(command: BaseCommand, out: Output, chosen: Chosen, outcome: Outcome, done: str, dry_run: bool) -> None:
    if options_json := outcome.as_json:
        if not dry_run:
            out.json({done: outcome.done, "refused": outcome.refused, "not_tried": outcome.not_tried})
    elif not dry_run:
        if chosen.count or chosen.missing:
            out.line(f"{done.capitalize()} {outcome.done} of {counted(chosen.count + len(chosen.missing))}.")
        else:
            out.line("No dead letter matches.")
    if options_json:
        return
    for reason, count in outcome.reasons.most_common(SHOWN_REASONS):
        example = outcome.examples[reason]
        command.stderr.write(shown(f"{count} x {reason} ({example}{', ...' if count > 1 else ''})"), _unstyled)
    if (more := len(outcome.reasons) - SHOWN_REASONS) > 0:
        command.stderr.write(f"and {more} more reasons; --json has them all", _unstyled)


def _unstyled(text: str) -> str:
    return text
