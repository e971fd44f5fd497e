"""What verbs print: safe on any terminal, and no traceback when nobody reads it any more."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError, OutputWrapper

NARROWEST = 8
"""Characters that a column of a table keeps on the narrowest terminal."""

_SAMPLE = 50
"""Rows that decide how wide the columns of a table are."""

# What moves the cursor, colours, or turns the direction of a text; the last two are line ends of their own.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ud800-\udfff]")


def shown(text: str, lines: bool = False) -> str:
    """Return ``text`` with everything escaped that a terminal would obey; with ``lines``, line ends and tabs stay.

    A worker's text may come from anywhere: an escape sequence in an exception's message could rewrite the screen.
    """
    return _CONTROLS.sub(lambda found: found[0] if lines and found[0] in "\n\t" else _escape(found[0]), text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class Output:
    """Writes lines to a stream; characters that its encoding lacks are escaped.

    Once the reader has gone (``| head``), ``closed`` is true and nothing more is written.
    """

    def __init__(self, stream: OutputWrapper) -> None:
        self._stream = stream
        self.closed = False

    def line(self, text: str = "") -> None:
        if self.closed:
            return
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        try:
            self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except BrokenPipeError:
            self._close()

    def json(self, facts: Any) -> None:
        """Write one line of JSON, all of it printable ASCII."""
        self.line(json.dumps(facts, default=str).replace("\x7f", "\\u007f"))

    def flush(self) -> None:
        if self.closed:
            return
        try:
            self._stream.flush()
        except BrokenPipeError:
            self._close()

    @property
    def is_terminal(self) -> bool:
        return bool(self._stream.isatty())

    def _close(self) -> None:
        self.closed = True
        # Python flushes standard output once more at its end, and would complain then.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


@contextmanager
def output(command: BaseCommand) -> Iterator[Output]:
    """Give the standard output of ``command``, and flush it at the end."""
    out = Output(command.stdout)
    try:
        yield out
    finally:
        out.flush()


def table(out: Output, heads: Sequence[str], rows: Iterable[Sequence[str]], whole: Sequence[int] = (0,)) -> None:
    """Write a table; on a terminal it is as wide as that, and the widest columns but those in ``whole`` are cut.

    The rows are not held in memory; the first ones decide how wide the columns are.
    """
    cells = ([shown(cell) for cell in row] for row in rows)
    first = list(islice(cells, _SAMPLE))
    widths = [max(map(_width, column)) for column in zip(heads, *first, strict=True)]
    if out.is_terminal:
        _fit(widths, shutil.get_terminal_size().columns, set(whole))
    cut = set(range(len(heads))) - set(whole) if out.is_terminal else set()
    for row in chain([heads], first, cells):
        fitting = (
            _cut(cell, width) if column in cut else cell
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        padded = (cell + " " * (width - _width(cell)) for cell, width in zip(fitting, widths, strict=True))
        out.line("  ".join(padded).rstrip())
        if out.closed:
            return


def _fit(widths: list[int], room: int, whole: set[int]) -> None:
    room -= 2 * (len(widths) - 1)
    while sum(widths) > room:
        elastic = [column for column, width in enumerate(widths) if column not in whole and width > NARROWEST]
        if not elastic:
            return
        widths[max(elastic, key=lambda column: widths[column])] -= 1


def _cut(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    while _width(text) > width - 2:
        text = text[:-1]
    return f"{text}.."


def _width(text: str) -> int:
    """Return how many columns ``text`` takes: two for Chinese characters, none for accents of their own."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def confirm(question: str, *, yes: bool, nothing: str) -> None:
    """Ask on the terminal, unless ``yes``; ``nothing`` says what was not done.

    Raises:
        CommandError: the answer was no (exit code 1), or there is no terminal to ask on (2).
    """
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise CommandError(f"{question} There is no terminal to ask on: say --yes.", returncode=2)
    # Not to standard output, which may be a file of JSON Lines.
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError(f"{nothing}.")


def counted(number: int, noun: str = "dead letter") -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
