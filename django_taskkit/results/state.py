"""What a page is told about a result: there, on its way, failed, lost or refused."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone

from django_taskkit.progress import Progress


class Status(str, enum.Enum):
    """How a result stands."""

    HIT = "hit"
    """The value is there and fresh."""
    STALE = "stale"
    """A value is there, older than ``timeout`` but not than ``stale_for`` more; a new one is on its way."""
    PENDING = "pending"
    """The task is sent and has not begun."""
    RUNNING = "running"
    """A worker runs the task."""
    RETRYING = "retrying"
    """A run failed, and the task will run again by itself."""
    FAILED = "failed"
    """The task failed for good, unless an operator requeues its dead letter."""
    LOST = "lost"
    """Nobody has heard of the task for too long; the next one who wants the value sends it again."""
    REFUSED = "refused"
    """The task could not be sent, or the cache is out of reach; nothing is on its way."""
    ABSENT = "absent"
    """There is no value, and nobody has asked for one."""

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, kw_only=True)
class TaskFailure:
    """Why there is no value. For logs and operators; a page shows neither of the two texts by itself."""

    kind: str
    """The class of the exception, with its module."""
    message: str


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """How the result of one call stands, at one moment."""

    status: Status
    value: Any = None
    """What the task returned, if ``has_value``."""
    age: float | None = None
    """Seconds since the value was stored; None if there is none."""
    expires_in: float | None = None
    """Seconds until the value is stale, negative if it is; None if there is none, or it stays fresh for ever."""
    task_id: str = ""
    """The task whose run is meant: the one that is on its way, else the one that made the value; empty: there is
    neither."""
    value_id: str = ""
    """The task that made the value; another value has another one."""
    run: Status | None = None
    """Of a stale value: how the task stands that is to replace it (PENDING, RUNNING, RETRYING, FAILED, LOST, REFUSED);
    None if nobody has sent one."""
    progress: Progress | None = None
    """What the task itself has said, if it is running or will run again."""
    error: TaskFailure | None = None
    dead_letter: str = ""
    """Status of the task's dead letter (``"dead"``, ``"held"``, ``"discarded"``; ``"recovered"``: it was requeued with
    other arguments, which make another value); empty: it has none."""
    retry_after: int | None = None
    """Whole seconds after which it is worth asking again; None: never."""
    attempt: int = 0
    """Which run it is, or was; 0: none has begun."""
    dispatched: bool = False
    """Whether it was this very request that sent the task."""
    cache: str = "default"
    """Alias of the cache that all this is kept in."""

    @property
    def has_value(self) -> bool:
        """Whether ``value`` is one; None is a value as well."""
        return self.status in (Status.HIT, Status.STALE)

    @property
    def is_waiting(self) -> bool:
        """Whether there is no value, and one is on its way."""
        return self.status in _WAITING

    @property
    def is_being_made(self) -> bool:
        """Whether a value is on its way, also if there is an older one meanwhile."""
        return (self.run or self.status) in _WAITING

    @property
    def made_at(self) -> datetime | None:
        """When the value was stored; None if there is none."""
        return None if self.age is None else timezone.now() - timedelta(seconds=self.age)


_WAITING = frozenset({Status.PENDING, Status.RUNNING, Status.RETRYING})
