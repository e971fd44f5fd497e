"""What is noted of a task from elsewhere than the process that runs it, where nobody knows its mark."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from django_taskkit.progress import KEPT_FOR, card_key
from django_taskkit.results.making import harmless, own_order, store_of
from django_taskkit.results.order import Order
from django_taskkit.results.records import FAILED, PENDING, RETRYING, Record, begin, put
from django_taskkit.stores import update
from django_taskkit.stores.place import cache_at

MESSAGE_MAX_LENGTH: Final = 500
"""Characters of an error's message that are kept; the dead letter has all of it."""


@harmless
def died(header: object, task_id: object, exc: BaseException, *, is_dead_letter: bool) -> None:
    """Note the death of a message, in the worker's own process."""
    if (order := own_order(header, task_id)) is not None:
        until = time.time() + order.failure_kept_for
        _put(order, FAILED, until, is_dead_letter=is_dead_letter, **said_of(exc))


@harmless
def will_run_again_after_loss(header: object, task_id: object, seconds: float) -> None:
    """Note that the worker has sent a message again whose process was lost."""
    if (order := own_order(header, task_id)) is not None:
        note_retry(order, time.time() + seconds, lambda *said, **more: _put(order, *said, **more))


def _put(order: Order, status: str, until: float, **more: Any) -> None:
    record = Record(task_id=order.task_id, status=status, until=until, **more)
    update(store_of(order), order.run_key, put(record, None), ttl=record.ttl(time.time()))


@harmless
def requeued(header: object, task_id: object, countdown: float) -> None:
    """Note that a dead letter is put back, before it is sent.

    Args:
        countdown: seconds that it waits before it runs.
    """
    if (order := own_order(header, task_id)) is not None:
        now = time.time()
        record = Record(task_id=order.task_id, status=PENDING, until=now + countdown + order.lock_timeout)
        update(store_of(order), order.run_key, begin(record, now), ttl=record.ttl(now))


def note_retry(order: Order, next_at: float, note: Callable[..., None]) -> None:
    """Note that the task will run again at ``next_at``, seconds since the epoch."""
    note(RETRYING, next_at + order.lock_timeout, next_at=next_at)
    cache_at(order.cache).touch(card_key(order.task_id), max(KEPT_FOR, next_at - time.time() + order.lock_timeout))


def said_of(exc: BaseException) -> dict[str, Any]:
    """Return what a record says of an error."""
    kind = type(exc)
    try:
        message = str(exc)[:MESSAGE_MAX_LENGTH]
    except Exception:  # an exception's own code
        message = ""
    return {"error_kind": f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins."), "error_message": message}
