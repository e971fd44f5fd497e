"""Who makes a value, and how that stands: pure changes of one stored record.

It is written before the task is sent, and given away for the value when the task succeeds. Each run that begins puts
its own mark on it, and only who finds the own mark may set the value: a slow run can't overwrite what a newer one made,
nor bring back what was invalidated meanwhile.

Its times are of the machines' clocks, which NTP keeps together.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, replace

from django_taskkit.stores import Change

PENDING, RUNNING, RETRYING, FAILED = "pending", "running", "retrying", "failed"

GRACE = 3600.0
"""Seconds that a record is kept when its time is up, so that one can say that the run was lost."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """How the task stands that makes a value."""

    task_id: str
    status: str
    until: float
    """Seconds since the epoch; after that the run counts as lost, and a failure is forgotten."""
    mark: str = ""
    """Of the run that goes on; empty before the first."""
    attempt: int = 0
    """Which run it is, or was; 0: none has begun."""
    next_at: float | None = None
    """Seconds since the epoch when it runs again."""
    error_kind: str = ""
    error_message: str = ""
    is_dead_letter: bool = False
    """Whether there is a row that an operator can requeue."""

    def encode(self) -> bytes:
        return json.dumps(asdict(self), separators=(",", ":")).encode()

    def is_on_its_way(self, now: float) -> bool:
        """Say whether a value may still come of it by itself."""
        return self.status != FAILED and now < self.until

    def ttl(self, now: float) -> float:
        """Return for how many seconds it is to be kept."""
        grace = 0 if self.status == FAILED else GRACE
        return max(1.0, self.until - now + grace)


_TYPES: dict[str, tuple[type, ...]] = {
    "task_id": (str,),
    "status": (str,),
    "until": (int, float),
    "mark": (str,),
    "attempt": (int,),
    "next_at": (int, float, type(None)),
    "error_kind": (str,),
    "error_message": (str,),
    "is_dead_letter": (bool,),
}


def decode(value: bytes | None) -> Record | None:
    """Return the record; None if there is none, or something that isn't one."""
    if value is None:
        return None
    try:
        found = json.loads(value)
        return Record(**{name: found[name] for name, kinds in _TYPES.items() if isinstance(found[name], kinds)})
    except (ValueError, TypeError, KeyError):
        return None


def new_mark() -> str:
    return uuid.uuid4().hex


def begin(mine: Record, now: float) -> Change[bool]:
    """Put the mark of a run that begins on the record; the answer is False if another task makes the value.

    That is what a message finds that was thought lost, when a newer one was sent in its place. If nobody makes the
    value any more, a late one does: it has yet to look at the data, so what it returns is as good as any.
    """

    def change(old: bytes | None) -> tuple[bytes | None, bool]:
        found = decode(old)
        if found is None or found.task_id == mine.task_id or not found.is_on_its_way(now):
            return mine.encode(), True
        return old, False

    return change


def renew(mark: str, until: float) -> Change[bool]:
    """Say that a run goes on; the answer is False if the value is not its to make any more."""

    def change(old: bytes | None) -> tuple[bytes | None, bool]:
        found = decode(old)
        if found is None or found.mark != mark or found.status != RUNNING:
            return old, False
        return replace(found, until=until).encode(), True

    return change


def put(new: Record, mark: str | None) -> Change[bool]:
    """Replace the record of the run ``mark`` by ``new``; the answer is False if it is another's.

    Args:
        mark: None if who writes doesn't know it: the worker, of a process that was lost; then the task decides.
    """

    def change(old: bytes | None) -> tuple[bytes | None, bool]:
        found = decode(old)
        if found is None or found.task_id != new.task_id or (mark is not None and found.mark not in ("", mark)):
            return old, False
        return replace(new, mark=found.mark, attempt=new.attempt or found.attempt).encode(), True

    return change


def cut_off(old: bytes | None) -> tuple[bytes | None, bool]:
    """Take the value away from the run that goes on, which has looked at data that don't count any more.

    What has yet to begin, or to run again, will look at the new ones.
    """
    found = decode(old)
    waits = found is not None and found.status in (PENDING, RETRYING)
    return (old, True) if waits else (None, False)
