"""How far something long is: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

BAR = 20
"""Characters."""

REDRAWN, LINES = 0.1, 5.0
"""Seconds between two bars, and between two lines where there is no terminal."""


class Progress:
    """Shows progress on ``stream``, as a block: ``with Progress(command.stderr, 1000) as progress: …``.

    On a terminal one line is drawn again and again; elsewhere, in a log for instance, there is a line every five
    seconds at most, and nothing at all for what takes less than that. Nothing that the stream does raises.

    Args:
        stream: a text stream, or Django's wrapper of one.
        total: how much there is to do.
        clock: seconds from any point in time.
    """

    def __init__(self, stream: Any, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.done = 0
        self.text = ""
        self._stream = getattr(stream, "_out", stream)  # Django's wrapper ends each write with a line end
        self._clock = clock
        self._is_terminal = bool(self._stream.isatty()) and os.environ.get("TERM") != "dumb"
        self._began = clock()
        self._shown_at: float | None = None if self._is_terminal else self._began
        self._is_drawn = False
        self._drawn = (-1, "")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self.end()

    def advance(self, count: int = 1, text: str | None = None) -> None:
        """Note that ``count`` more is done."""
        self.show(self.done + count, text)

    def show(self, done: int, text: str | None = None) -> None:
        """Note that ``done`` of it is done; ``text`` follows the numbers, and stays until there is another."""
        self.done = done
        self.text = self.text if text is None else text
        now = self._clock()
        pause = REDRAWN if self._is_terminal else LINES
        if self._shown_at is None or now - self._shown_at >= pause:
            self._shown_at = now
            self._draw()

    def end(self) -> None:
        """Show the last state and leave the line, if anything was shown before."""
        if self._is_drawn and (self._is_terminal or self._drawn != (self.done, self.text)):
            self._draw()
        if self._is_drawn and self._is_terminal:
            self._write("\n")
        self._is_drawn = False

    def clear(self) -> None:
        """Take the bar away, so that something else can be written."""
        if self._is_terminal and self._is_drawn:
            self._write("\r\x1b[K")
        self._is_drawn = False

    def _draw(self) -> None:
        self._is_drawn, self._drawn = True, (self.done, self.text)
        part = min(1.0, self.done / self.total) if self.total else 1.0
        numbers = f"{int(part * 100)} % {self.done} of {self.total}"
        line = ", ".join(filter(None, [numbers, self.text]))
        if not self._is_terminal:
            self._write(f"{line}\n")
            return
        full = int(part * BAR)
        bar = f"[{'#' * full}{'.' * (BAR - full)}] {line}"
        # A line that is longer than the terminal is wide would not be drawn over.
        self._write(f"\r{bar[: max(1, shutil.get_terminal_size().columns - 1)]}\x1b[K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # whoever read it is gone; the work goes on
            self._is_drawn = False
