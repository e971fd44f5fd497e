"""``manage.py taskkit import``: bring dead letters in from an export, from results that Celery stored, from a queue."""

from __future__ import annotations

import gzip
import json
import os
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DatabaseError, InterfaceError

from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.transfer import celery_results, foreign_queue
from django_taskkit.dlq.transfer.importing import Importer
from django_taskkit.dlq.transfer.portable import UnreadableLineError, letter_in
from django_taskkit.exceptions import TaskkitError
from django_taskkit.management.chosen import INTERRUPTED, operator
from django_taskkit.management.filters import moment
from django_taskkit.management.progress import Progress
from django_taskkit.management.terminal import counted, shown

HELP = (
    "Bring dead letters in: from a file of taskkit export, from failures in django-celery-results, or from a queue of "
    "RabbitMQ. A letter whose task id is in the table is left alone, so an import can be run again. "
    "The exit code is 1 if anything was refused."
)

STANDARD = "-"
FILE, RESULTS, QUEUE = "file", "django-celery-results", "rabbitmq-queue"

GZIP = b"\x1f\x8b"
"""How compressed data begin."""

LONGEST_LINE = 1 << 30
"""Bytes; a body of more than 700 MB is more than any broker takes."""


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument(
        "source",
        nargs="?",
        default="",
        metavar="FILE|-|QUEUE",
        help="what taskkit export wrote, .gz too; - is the standard input; or, with --from rabbitmq-queue, the queue",
    )
    parser.add_argument("--from", dest="origin", choices=[FILE, RESULTS, QUEUE], default=FILE, help="default: file")
    parser.add_argument("--dry-run", action="store_true", help="read and check everything, and write nothing")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON")
    parser.add_argument("--since", type=moment, help=f"with --from {RESULTS}: done at that time or later, or '2h' ago")
    parser.add_argument("--until", type=moment, help=f"with --from {RESULTS}: done before that time")
    parser.add_argument(
        "--force", action="store_true", help=f"with --from {QUEUE}: also a queue that the app knows as one of its own"
    )


def handle(command: BaseCommand, **options: Any) -> None:
    _check(options)
    verb = {FILE: _from_file, RESULTS: _from_results, QUEUE: _from_queue}[options["origin"]]
    try:
        verb(command, options)
    except TaskkitError as exc:
        raise CommandError(f"{exc}.") from exc
    except (DatabaseError, InterfaceError) as exc:
        raise CommandError(
            f"The database can't be used: {exc}. What was written stays; run the import again for the rest."
        ) from exc
    except KeyboardInterrupt:
        raise CommandError(
            "Interrupted. What was written stays; run the import again for the rest.", returncode=INTERRUPTED
        ) from None


def _check(options: dict[str, Any]) -> None:
    origin, source = options["origin"], options["source"]
    if origin == RESULTS and source:
        raise CommandError(f"--from {RESULTS} takes no {source!r}: it reads the project's own table.", returncode=2)
    if origin != RESULTS and not source:
        raise CommandError(
            "Say what to import: a file, - for the standard input, or a queue with --from.", returncode=2
        )
    for name, owner in (("since", RESULTS), ("until", RESULTS), ("force", QUEUE)):
        if options[name] and origin != owner:
            raise CommandError(f"--{name} goes with --from {owner} only.", returncode=2)


def _from_file(command: BaseCommand, options: dict[str, Any]) -> None:
    source = options["source"]
    name = "the standard input" if source == STANDARD else source
    with (
        _opened(source) as (file, raw),
        Progress(command.stderr, _size(raw)) as progress,
        _importer(command, options, f"from {Path(name).name}", progress) as importer,
    ):
        for number, line in _lines(file, name):
            place = f"line {number}"
            if len(line) > LONGEST_LINE:
                importer.refuse(place, f"it is longer than {LONGEST_LINE} bytes")
                continue
            try:
                importer.add(place, letter_in(line))
            except UnreadableLineError as exc:
                importer.refuse(place, str(exc))
            if raw is not None:
                progress.show(raw.tell(), f"bytes, {counted(number, 'line')}")
    _report(command, options, importer)


@contextmanager
def _opened(source: str) -> Iterator[tuple[IO[bytes], IO[bytes] | None]]:
    """Give the stream to read lines from, and the file below it, which tells how far that is."""
    if source == STANDARD:
        yield _unpacked(sys.stdin.buffer), None
        return
    try:
        raw = Path(source).open("rb")  # noqa: SIM115 (what goes wrong later has other causes)
    except OSError as exc:
        raise CommandError(f"{source} can't be read: {exc.strerror or exc}.") from exc
    with raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if source.endswith(".gz") else _unpacked(raw)
        yield stream, raw


def _unpacked(stream: Any) -> Any:
    """Return what to read from: a compressed stream may come by pipe, or have lost its name."""
    peek = getattr(stream, "peek", None)  # what stands in for the standard input may have none
    return gzip.GzipFile(fileobj=stream) if peek and peek(2)[:2] == GZIP else stream


def _size(raw: IO[bytes] | None) -> int:
    return os.fstat(raw.fileno()).st_size if raw is not None else 0


def _lines(file: IO[bytes], name: str) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that aren't empty, with their numbers; of one that is too long, only as much as tells that."""
    number = 0
    while True:
        number += 1
        try:
            line = rest = file.readline(LONGEST_LINE + 2)
            while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                rest = file.readline(LONGEST_LINE + 2)
        except (OSError, EOFError, zlib.error) as exc:
            raise CommandError(
                f"{name} can't be read on from line {number}: {exc}. What was before it is brought in."
            ) from exc
        if not line:
            return
        if line.strip():
            yield number, line.rstrip(b"\r\n")


def _from_results(command: BaseCommand, options: dict[str, Any]) -> None:
    results = celery_results.failures(options["since"], options["until"])
    app = project_app()
    whys: Counter[str] = Counter()
    with (
        Progress(command.stderr, results.count()) as progress,
        _importer(command, options, celery_results.NOTE, progress) as importer,
    ):
        for task_id, found in celery_results.letters(app, results):
            if isinstance(found, celery_results.NoMessageError):
                whys[str(found)] += 1
                importer.refuse(task_id, str(found))
            else:
                importer.add(task_id, found)
            progress.advance(1)
    _report(command, options, importer, whys)


def _from_queue(command: BaseCommand, options: dict[str, Any]) -> None:
    name = options["source"]
    app = project_app()
    with foreign_queue.opened(app, name, force=options["force"]) as broker:
        waiting = broker.size(name)
        if options["dry_run"]:
            _say(command, options, {"waiting": waiting}, f"{counted(waiting, 'message')} in the queue {name}.")
            return
        with Progress(command.stderr, waiting) as progress:
            done = foreign_queue.drain(app, broker, name, by=operator(), each=lambda: progress.advance(1))
    facts = {"imported": done.imported, "already_there": done.known, "refused": done.set_aside}
    _say(command, options, facts, _counts(done.imported, done.known, done.set_aside))
    if done.set_aside:
        raise CommandError(
            f"The database refuses {counted(done.set_aside, 'message')}, kept as files: the log says where and why."
        )


def _importer(command: BaseCommand, options: dict[str, Any], note: str, progress: Progress) -> Importer:
    def refuse(place: str, why: str) -> None:
        progress.clear()
        command.stderr.write(f"{shown(place)}: {shown(why)}")

    return Importer(by=operator(), note=note, refuse=refuse, dry_run=options["dry_run"])


def _report(
    command: BaseCommand, options: dict[str, Any], importer: Importer, whys: Counter[str] | None = None
) -> None:
    facts: dict[str, Any] = {
        "imported": importer.imported,
        "already_there": importer.known,
        "refused": importer.refused,
    }
    if whys is not None:
        facts["refused_because"] = dict(whys)
    text = _counts(importer.imported, importer.known, importer.refused, options["dry_run"])
    for why, count in (whys or Counter()).most_common():
        text += f"\n  {count}: {why}"
    _say(command, options, facts, text)
    if importer.refused:
        were = "was" if importer.refused == 1 else "were"
        raise CommandError(f"{importer.refused} {were} refused; each is named above.")


def _counts(imported: int, known: int, refused: int, dry_run: bool = False) -> str:
    what = "Would import" if dry_run else "Imported"
    return f"{what} {counted(imported)}; {known} already there, {refused} refused."


def _say(command: BaseCommand, options: dict[str, Any], facts: dict[str, Any], text: str) -> None:
    command.stdout.write(json.dumps({**facts, "dry_run": options["dry_run"]}) if options["json"] else text)
