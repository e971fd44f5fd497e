"""How far a redrive is. All of it is in its row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone

from django_taskkit.dlq.redrive import canary
from django_taskkit.dlq.redrive.model import Redrive

OPEN = (Redrive.State.PREPARING, Redrive.State.RUNNING, Redrive.State.PAUSED, Redrive.State.STOPPED)
"""States from which it may still send something."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Counts of a redrive, as of when it was read."""

    total: int
    sent: int
    refused: int
    recovered: int
    failed_again: int
    rate: float | None
    """Messages per second that were sent since its runner began; None while that can't be said."""
    eta: timedelta | None
    """Until all are sent; None while that can't be said."""

    @property
    def done(self) -> int:
        """Sent or refused."""
        return self.sent + self.refused

    @property
    def waiting(self) -> int:
        return max(0, self.total - self.done)

    @property
    def running(self) -> int:
        """Sent, and not ended as far as is known."""
        return max(0, self.sent - self.recovered - self.failed_again)

    @property
    def percent(self) -> int:
        return 100 if not self.total else self.done * 100 // self.total


def progress_of(redrive: Redrive, clock: Callable[[], datetime] = timezone.now) -> Progress:
    """Return the counts, the rate and the time left of ``redrive``; no query."""
    rate: float | None = None
    eta: timedelta | None = None
    if redrive.state == Redrive.State.RUNNING and redrive.run_from and redrive.held_by:
        seconds = (clock() - redrive.run_from).total_seconds()
        if seconds >= 1 and redrive.sent > redrive.sent_before:
            rate = (redrive.sent - redrive.sent_before) / seconds
            waiting = max(0, redrive.total - redrive.sent - redrive.refused)
            eta = timedelta(seconds=round(waiting / rate)) if canary.is_over(redrive) else None
    return Progress(
        total=redrive.total,
        sent=redrive.sent,
        refused=redrive.refused,
        recovered=redrive.recovered,
        failed_again=redrive.failed_again,
        rate=rate,
        eta=eta,
    )


def is_abandoned(redrive: Redrive, clock: Callable[[], datetime] = timezone.now) -> bool:
    """Say whether whoever prepared it has ended in the middle; it is never run."""
    overdue = redrive.held_until is None or redrive.held_until < clock()
    return redrive.state == Redrive.State.PREPARING and overdue
