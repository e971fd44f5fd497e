"""``manage.py taskkit export``: dead letters as JSON Lines, for ``taskkit import`` in another environment."""

from __future__ import annotations

import gzip
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import router

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.transfer.portable import lines
from django_taskkit.management.chosen import INTERRUPTED
from django_taskkit.management.filters import add_filters, selection_of
from django_taskkit.management.progress import Progress
from django_taskkit.management.terminal import counted, output

HELP = (
    "Write dead letters as JSON Lines: all of each row, its message and its history, for taskkit import elsewhere. "
    "Arguments are written as they are, secrets included, so a file gets the mode 0600. Nothing is changed."
)

STANDARD = "-"


def add_arguments(parser: CommandParser) -> None:
    add_filters(parser, revoked=True)
    parser.add_argument(
        "-o",
        "--output",
        default=STANDARD,
        metavar="FILE",
        help="where to, in the place of a file of that name; one that ends in .gz is compressed; "
        "by default -, the standard output",
    )


def handle(command: BaseCommand, **options: Any) -> None:
    try:
        _export(command, options)
    except KeyboardInterrupt:
        kept = "" if options["output"] == STANDARD else f" {options['output']} is as it was."
        raise CommandError(f"Interrupted.{kept}", returncode=INTERRUPTED) from None


def _export(command: BaseCommand, options: dict[str, Any]) -> None:
    # Where letters are written, since a replica may lag behind.
    letters = selection_of(options).queryset().using(router.db_for_write(DeadLetter))
    with Progress(command.stderr, letters.count()) as progress:
        if options["output"] == STANDARD:
            with output(command) as out:
                for line in _counting(lines(letters), progress):
                    out.line(line)
                    if out.closed:
                        return
            return
        path = Path(options["output"])
        count = 0
        try:
            with replaced(path) as write:
                for line in _counting(lines(letters), progress):
                    write(f"{line}\n".encode("ascii"))
                    count += 1
        except OSError as exc:
            raise CommandError(f"{path} can't be written: {exc}") from exc
    command.stdout.write(f"Wrote {counted(count)} to {path}, which may hold secrets.")


def _counting(found: Iterable[str], progress: Progress) -> Iterator[str]:
    for line in found:
        yield line
        progress.advance(1)


@contextmanager
def replaced(path: Path) -> Iterator[Callable[[bytes], object]]:
    """Give a function that writes bytes, and put it all in the place of ``path`` when the block has ended well.

    A reader sees the old file or the new one, never half of it. Nobody but the owner may read it.

    Raises:
        OSError: it can't be written, or is something else than a file.
    """
    if path.exists() and not path.is_file():
        raise OSError("it is no file; give the name of one, or - for the standard output")
    # Made with the mode 0600, whatever the umask says.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6) as packed:
                    yield packed.write
            else:
                yield file.write
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        with suppress(OSError):
            new.unlink()
        raise
