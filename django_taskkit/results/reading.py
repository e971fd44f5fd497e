"""From what is stored to what a page is told. Nothing here changes anything."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from typing import Any, Final

from django_taskkit.models import DeadLetter
from django_taskkit.progress import progress_of
from django_taskkit.results.records import FAILED, Record
from django_taskkit.results.state import Status, TaskFailure, TaskState
from django_taskkit.results.tags import still_count, tag_key
from django_taskkit.results.values import Kept, unpack
from django_taskkit.stores.place import cache_at

logger = logging.getLogger("django_taskkit")

POLL_EVERY: Final = 2
"""Seconds after which it is worth asking again, where nobody says otherwise."""


def look(alias: str, key: str, tags: Iterable[str]) -> Kept | None:
    """Return the value at ``key`` if it counts; one question to the cache."""
    cache = cache_at(alias)
    if not tags:
        return unpack(cache.get(key))
    found = cache.get_many([key, *map(tag_key, tags)])
    kept = unpack(found.get(key))
    return kept if kept is not None and still_count(tags, kept.versions, found) else None


def hit(kept: Kept, age: float, timeout: float | None, alias: str) -> TaskState:
    """Return the state of a value that is fresh."""
    # This is what most requests get. A frozen dataclass sets each of its fields in a slow way, so this goes around its
    # __init__; what is left out are the defaults, which the class has.
    state = object.__new__(TaskState)
    state.__dict__.update(
        status=Status.HIT,
        value=kept.value,
        age=age if age > 0 else 0.0,
        expires_in=None if timeout is None else timeout - age,
        task_id=kept.task_id,
        value_id=kept.task_id,
        cache=alias,
    )
    return state


def state_of(
    kept: Kept | None,
    record: Record | None,
    *,
    alias: str,
    now: float,
    timeout: float | None,
    stale_for: float = math.inf,
    poll_every: int = POLL_EVERY,
    dispatched: bool = False,
    ignore_fresh: bool = False,
) -> TaskState:
    """Return how a result stands.

    Args:
        kept: the value, if the cache has one.
        record: of the task that makes a new one, if there is one.
        now: seconds since the epoch.
        ignore_fresh: whether even a fresh value is only shown until the new one is there.
    """
    age = None if kept is None else now - kept.stored_at
    if kept is not None and age is not None and not ignore_fresh and (timeout is None or age < timeout):
        return hit(kept, age, timeout, alias)
    run, letter = _run(record, now)
    facts: dict[str, Any] = {"cache": alias, "dispatched": dispatched, "dead_letter": letter}
    if record is not None and run is not None:
        facts.update(task_id=record.task_id, attempt=record.attempt, retry_after=_after(record, run, now, poll_every))
        if run is Status.FAILED:
            facts["error"] = TaskFailure(kind=record.error_kind, message=record.error_message)
        elif record.attempt:
            facts["progress"] = progress_of(record.task_id, cache=alias)
    if kept is not None and age is not None and (timeout is None or age < timeout + stale_for):
        facts.update(value=kept.value, value_id=kept.task_id, age=max(0.0, age))
        facts.setdefault("task_id", kept.task_id)
        return TaskState(status=Status.STALE, run=run, expires_in=None if timeout is None else timeout - age, **facts)
    return TaskState(status=run or Status.ABSENT, **facts)


def refused_by(
    exc: BaseException, kept: Kept | None, *, alias: str, now: float, timeout: float | None, retry_after: int
) -> TaskState:
    """Return the state where nothing could be sent because of ``exc``; a value that is there is shown."""
    facts: dict[str, Any] = {
        "error": TaskFailure(kind=f"{type(exc).__module__}.{type(exc).__qualname__}", message=str(exc)),
        "retry_after": retry_after,
        "cache": alias,
    }
    if kept is None:
        return TaskState(status=Status.REFUSED, **facts)
    age = now - kept.stored_at
    return TaskState(
        status=Status.STALE,
        run=Status.REFUSED,
        value=kept.value,
        value_id=kept.task_id,
        task_id=kept.task_id,
        age=max(0.0, age),
        expires_in=None if timeout is None else timeout - age,
        **facts,
    )


def _run(record: Record | None, now: float) -> tuple[Status | None, str]:
    """Return how the task stands, None if there is none that matters, and the status of its dead letter."""
    if record is None:
        return None, ""
    if record.status != FAILED:
        return (Status(record.status) if record.is_on_its_way(now) else Status.LOST), ""
    letter = _status_of_letter(record.task_id) if record.is_dead_letter else ""
    if letter == "requeued":
        return Status.PENDING, ""
    return (Status.FAILED if now < record.until else None), letter


def _status_of_letter(task_id: str) -> str:
    try:
        return str(DeadLetter.objects.filter(task_id=task_id).values_list("status", flat=True).first() or "")
    except Exception as exc:  # a page shows that the task failed, also while the database is away
        logger.warning("the dead letter of task %s can't be looked at: %r", task_id, exc)
        return ""


def _after(record: Record, run: Status, now: float, poll_every: int) -> int | None:
    """Return whole seconds after which something may have changed."""
    if run is Status.RETRYING and record.next_at is not None:
        return max(poll_every, math.ceil(record.next_at - now))
    if run is Status.FAILED:
        return max(1, math.ceil(record.until - now))
    return poll_every
