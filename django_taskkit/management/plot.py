"""Draw on a terminal, in plain characters: when retries start, and which outages they outlive."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from django_taskkit.base_tasks.survival import Spread

HEIGHT = 4
"""Lines of the curve."""

NARROWEST = 20
"""Characters that the plot is wide at least, even on a terminal that has no room for it."""

TICKS = (1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400, 365 * 86400)
"""Seconds that an axis names if they are on it."""

_UNITS = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))


@dataclass(frozen=True)
class Pen:
    """The characters to draw with."""

    levels: str
    """Of a cell, from empty to full."""
    start: str
    line: str
    end: str
    median: str
    tick: str
    outage: str


UNICODE = Pen(levels=" ▁▂▃▄▅▆▇█", start="├", line="─", end="┤", median="●", tick="┬", outage="┊")
ASCII = Pen(levels=" .:#", start="|", line="-", end="|", median="o", tick="+", outage=":")


def pen_for(encoding: str | None) -> Pen:
    """Return what a stream of that encoding can show."""
    try:
        "".join(vars(UNICODE).values()).encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return UNICODE


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units: ``45s``, ``1m 30s``, ``2h``, ``3d 4h``."""
    if math.isinf(seconds):
        return "any"
    left = round(seconds)
    parts: list[str] = []
    for unit, size in _UNITS:
        if left >= size or (unit == "s" and not parts):
            parts.append(f"{left // size}{unit}")
            left %= size
        elif parts:
            break  # one unit may be left out only at the end
        if len(parts) == 2:
            break
    return " ".join(parts)


class Axis:
    """Seconds on a line of characters, ten times as many every so often: delays grow by factors."""

    def __init__(self, width: int, longest: float) -> None:
        self.width = max(NARROWEST, width)
        self._scale = math.log(max(10.0, longest))

    def column(self, seconds: float) -> int:
        return min(self.width - 1, round(math.log(max(1.0, seconds)) / self._scale * (self.width - 1)))

    def seconds(self, column: int) -> float:
        return math.exp(column / (self.width - 1) * self._scale)

    def lines(self, pen: Pen) -> tuple[str, str]:
        """Return the axis and the labels below it."""
        line, labels = [pen.line] * self.width, ""
        for tick in TICKS:
            column, label = self.column(tick), duration(tick)
            if math.log(tick) > self._scale + 1e-9 or column + len(label) > self.width:
                break
            if not labels or column > len(labels):
                line[column] = pen.tick
                labels = labels.ljust(column) + label
        return "".join(line), labels


def curve(axis: Axis, pen: Pen, odds: Callable[[float], float]) -> list[str]:
    """Return the lines of a curve from 100 % at their top to 0 % at their bottom."""
    full = len(pen.levels) - 1
    heights = [odds(axis.seconds(column)) * HEIGHT * full for column in range(axis.width)]
    return [
        "".join(pen.levels[max(0, min(full, math.ceil(height - below * full)))] for height in heights)
        for below in reversed(range(HEIGHT))
    ]


def bar(axis: Axis, pen: Pen, spread: Spread, outage: float | None = None) -> str:
    """Return a line from the least to the most of ``spread``, with its median; where it is empty, the outage's end."""
    cells = [" "] * axis.width
    if outage is not None:
        cells[axis.column(outage)] = pen.outage
    least, most = axis.column(spread.least), axis.column(spread.most)
    cells[least : most + 1] = pen.line * (most + 1 - least)
    cells[least], cells[most] = pen.start, pen.end
    cells[axis.column(spread.median)] = pen.median
    return "".join(cells)


def plot(
    bars: Sequence[tuple[str, Spread | None]],
    odds: Callable[[float], float],
    *,
    longest: float,
    width: int,
    pen: Pen,
    outage: float | None = None,
) -> list[str]:
    """Return a plot as lines of at most ``width`` characters, if there is room for that.

    Args:
        bars: label and spread of each line; None: nothing to draw.
        odds: of surviving an outage of so many seconds.
        longest: seconds at the right end.
        outage: seconds of an outage to mark.
    """
    names = [label for label, _ in bars]
    margin = max(map(len, ["100 %", *names])) + 1
    axis = Axis(width - margin, longest)
    scale = ["100 %", *[""] * (HEIGHT - 2), "0 %"]
    lines = [(label, line) for label, line in zip(scale, curve(axis, pen, odds), strict=True)]
    line, labels = axis.lines(pen)
    lines += [("", line), ("", labels)]
    for label, spread in bars:
        lines.append((label, "" if spread is None else bar(axis, pen, spread, outage)))
    return [f"{label:>{margin - 1}} {line}".rstrip() for label, line in lines]
