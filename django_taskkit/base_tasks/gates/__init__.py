"""What stands between a message and the body of its task: budgets, breakers, idempotency keys.

A gate sees the run before the body and its outcome afterwards. It decides, :class:`BaseTaskWithRetry` obeys. Tasks that
name none of them pay nothing. While the store is out of reach budgets and breakers stand open, as if there were none;
what an idempotency key does then is an option of the task.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django_taskkit.envelope import FIRST_FAILED_HEADER


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt at a task."""

    task: Any
    request: Any
    """Celery's request of this run; nothing is ever kept on the task, which all runs of the process share."""
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def is_first(self) -> bool:
        """Whether no run of this message has failed before, be it one that used up no retry."""
        return not self.request.retries and getattr(self.request, FIRST_FAILED_HEADER, None) is None


class Outcome(enum.Enum):
    """What became of a run whose body was entered."""

    SUCCEEDED = "succeeded"
    RETRIED = "retried"
    """It failed by an error that is retried, and will run again."""
    EXHAUSTED = "exhausted"
    """It failed by an error that is retried, and won't run again: retries or time are used up."""
    DIED = "died"
    """It failed by an error that is not retried, or with the verdict Permanent."""
    SNOOZED = "snoozed"
    """It asked to be run later, and didn't fail."""
    ENDED = "ended"
    """It ended by Celery's Ignore or Reject."""


class Wait(Exception):
    """The body must not run now; the message waits in the outbox, and no retry is used up.

    Args:
        why: one phrase, for the log and the stored state.
        base: seconds of the first wait; it doubles with each further one of the same message.
        cap: the longest wait in seconds.
        at_least: seconds before which coming back would be in vain.
    """

    def __init__(self, why: str, *, base: float = 30.0, cap: float = 600.0, at_least: float = 0.0) -> None:
        super().__init__(why)
        self.base = base
        self.cap = cap
        self.at_least = at_least

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class Answer:
    """The result of a task whose body need not run."""

    result: Any


class Gate(Protocol):
    """Stands between message and body."""

    def enter(self, run: Run) -> Answer | None:
        """Let the body run (None), or answer in its place.

        Raises:
            Wait: neither now.
            Exception: what an option that is a function raises; the run has failed by it.
        """
        ...

    def leave(self, run: Run, outcome: Outcome, *, result: Any = None, delay: float | None = None) -> Wait | None:
        """Take note of the outcome; called once for each ``enter`` that returned None, and raises nothing.

        Args:
            result: what the body returned, if it succeeded.
            delay: seconds until the next run, if there is one.

        Returns:
            For ``RETRIED`` and ``EXHAUSTED`` a gate may return a :class:`Wait`: what the task needs is down. The
            message then waits in the outbox, as long as the longer of the two says, and no retry is used up.
        """
        ...
