"""What happened, as Django signals: one frozen payload each, passed as ``event``.

    @receiver(task_dead_lettered)
    def page_someone(sender, event, **kwargs):
        ...

``sender`` is the class of the payload. A receiver that raises is logged by Django and harms nobody else.
The signals are sent in the process where the thing happened (often a worker), after it was committed.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.dispatch import Signal


@dataclass(frozen=True, kw_only=True)
class TaskEvent:
    """What every payload has."""

    task_id: str
    task_name: str


@dataclass(frozen=True, kw_only=True)
class RetryScheduled(TaskEvent):
    """A run failed and the task will run again by itself."""

    attempt: int
    """The run that failed, counted from 1."""
    delay: float | None
    """Seconds until the next run; None if the task named a time instead."""
    counted: bool = True
    """Whether a retry was used up; it is not by a Snooze, nor by what waits for a budget, a breaker or its own key."""
    exception_class: str
    exception_message: str


@dataclass(frozen=True, kw_only=True)
class DeadLettered(TaskEvent):
    """A message will not run again unless someone acts."""

    dead_letter_id: int
    reason: str
    exception_class: str
    exception_message: str
    attempts: int
    generation: int
    """How often the message had been requeued before; 0 for the first death."""


@dataclass(frozen=True, kw_only=True)
class Requeued(TaskEvent):
    """A dead letter was put back on its queue."""

    dead_letter_id: int
    generation: int
    by: str


@dataclass(frozen=True, kw_only=True)
class Recovered(TaskEvent):
    """A requeued message succeeded."""

    dead_letter_id: int
    generation: int


@dataclass(frozen=True, kw_only=True)
class Discarded(TaskEvent):
    """A dead letter was closed without running it."""

    dead_letter_id: int
    by: str
    note: str


task_retry_scheduled = Signal()
task_dead_lettered = Signal()
task_requeued = Signal()
task_recovered = Signal()
task_discarded = Signal()


@dataclass(frozen=True, kw_only=True)
class BreakerChanged:
    """A circuit breaker opened, let the first probe in, or closed; sent once, by the process that did it."""

    name: str
    """Of the breaker: what tasks have as ``breaker=``."""
    old: str
    """``"closed"``, ``"open"`` or ``"half_open"``."""
    new: str
    calls: int | None
    """How many calls of the window it opened on; None unless it was closed before."""
    failure_rate: float | None
    """Which part of these failed."""
    open_for: float | None
    """Seconds until the first probe, if it opened."""


breaker_changed = Signal()


@dataclass(frozen=True, kw_only=True)
class BeatRunsMissed:
    """An entry of beat's schedule should have run while no beat was at work; sent by the beat that finds out."""

    entry: str
    task_name: str
    count: int
    """How often it should have run; of what is no plain interval, at most 1000 are counted."""
    skipped: int
    """How many of these are never made up for: Celery sends one at most."""
    first: datetime
    """When the first of them was due; with a time zone."""
    since: datetime
    """When a beat was seen at work last; with a time zone."""


beat_runs_missed = Signal()


def announce(signal: Signal, event: TaskEvent) -> list[tuple[Any, Any]]:
    """Send ``event`` to every receiver, whatever the one before it did."""
    return signal.send_robust(sender=type(event), event=event)
