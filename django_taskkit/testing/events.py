"""What happened in a block, as facts that a test can look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["succeeded", "retried", "failed", "ignored", "rejected", "revoked", "killed", "timed out"]


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A message that was sent for the first time, to the broker or to the outbox."""

    task: str
    id: str
    args: tuple[Any, ...]
    """As they were given, before they were serialised."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    queue: str = ""
    delay: float = 0.0
    """Seconds until it was due when it was sent."""
    eta: datetime | None = None
    priority: int | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Retried:
    """A run after which the task was to run again by itself."""

    task: str
    id: str
    attempt: int
    """The run that ended, counted from 1."""
    delay: float
    """Seconds until the next run."""
    exception: BaseException | None
    """What the run raised."""
    counted: bool = True
    """Whether a retry was used up; it is not by a Snooze, a budget, a breaker or an idempotency key."""


@dataclass(frozen=True, kw_only=True)
class Ran:
    """One run of a message."""

    task: str
    id: str
    attempt: int
    """Counted from 1 by the retries that were used up; what is delivered again has the same number."""
    state: State
    at: datetime
    """By the fake clock, in UTC."""
    result: Any = None
    exception: BaseException | None = None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """A message that has not run yet."""

    task: str
    id: str
    queue: str
    due: datetime | None
    """None: it could run now."""
    where: Literal["broker", "outbox"]
    is_again: bool
    """Whether a run of it has ended before: a retry, or what was put off."""
    is_known: bool
    """Whether the project has such a task. Messages for other projects stay where they are."""
