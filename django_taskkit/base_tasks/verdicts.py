"""What a task may raise to say itself what becomes of its message."""

from __future__ import annotations

import math
from datetime import timedelta

Delay = float | timedelta
"""Seconds, 0 or more, or a timedelta."""

LONGEST = 100 * 365.25 * 86_400
"""Seconds; what is later may be no date at all."""


class Verdict(Exception):
    """A task's own word on what becomes of its message; :class:`BaseTaskWithRetry` obeys it.

    Not an error of the task's: ``raise Permanent("the card was stolen") from exc`` keeps the error that led to it.
    """


class Retryable(Verdict):
    """Run the task again later; counts as a retry, whatever ``autoretry_for`` says.

    Args:
        message: why; it is in the dead letter if the retries are used up.
        delay: seconds or a timedelta until then; None: as long as the task's policy says.

    Raises:
        ValueError: the delay is no time that can be waited.
    """

    def __init__(self, message: str = "", *, delay: Delay | None = None) -> None:
        super().__init__(message)
        self.delay = None if delay is None else seconds_of(delay)


class Permanent(Verdict):
    """Never run the task again by itself: it is a dead letter at once, with reason *permanent*."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)


class Snooze(Verdict):
    """Run the task again later, because it is too early: nothing failed, and no retry is used up.

    Args:
        delay: seconds or a timedelta until then.
        message: why; it is stored with the state RETRY.

    Raises:
        ValueError: the delay is no time that can be waited.
    """

    def __init__(self, delay: Delay, message: str = "") -> None:
        super().__init__(delay, message)
        self.delay = seconds_of(delay)
        self.message = message

    def __str__(self) -> str:
        return self.message or f"again in {self.delay:g} s"


def told_by(exc: BaseException) -> BaseException:
    """Return the error that tells what went wrong: what a verdict without words of its own was raised ``from``."""
    if not isinstance(exc, Verdict) or exc.__cause__ is None:
        return exc
    words = exc.message if isinstance(exc, Snooze) else str(exc)
    return exc if words else exc.__cause__


def seconds_of(delay: object) -> float:
    """Return ``delay`` in seconds.

    Raises:
        ValueError: it is neither a number of seconds, 0 or more, nor such a timedelta.
    """
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < math.inf:
        if seconds > LONGEST:
            raise ValueError(f"{delay!r} makes no sense; give at most {LONGEST:g} seconds, which is a hundred years")
        return float(seconds)
    raise ValueError(f"{delay!r} makes no sense; give seconds, 0 or more, or a timedelta")
