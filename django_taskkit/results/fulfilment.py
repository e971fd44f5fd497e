"""What the process that runs a task does if a ``ResultCache`` has sent it. Nothing here raises into Celery.

A run that begins puts its mark on the record, and renews it as long as it goes on. What it returns is traded for the
record, in one step. All other ways to end are noted there, for whoever waits.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime
from typing import Any, Final

from django_taskkit.envelope import RESULT_HEADER
from django_taskkit.exceptions import StoreError, ValueNotKeptError
from django_taskkit.results.making import Making, harmless, order_of, patiently
from django_taskkit.results.notices import note_retry, said_of
from django_taskkit.results.records import FAILED, PENDING, RETRYING, RUNNING, Record, begin, decode, renew
from django_taskkit.results.tags import versions_now
from django_taskkit.results.values import Kept, pack
from django_taskkit.stores import ValueStore, update
from django_taskkit.stores.place import cache_at
from django_taskkit.stores.renewal import Duty, renewer

logger = logging.getLogger("django_taskkit")

RENEWALS_PER_LEASE: Final = 3

TRIES: Final = 20
"""How often a record that is renewed meanwhile is read again."""

_MAKING = "taskkit_making"


@harmless
def began(request: Any) -> None:
    """Put the mark of the run that begins on its record."""
    order = order_of(request)
    if order is None:
        return
    making = Making(order=order, attempt=request.retries + 1, versions=dict.fromkeys(order.tags, ""))  # as no tag has
    setattr(request, _MAKING, making)
    now = time.time()
    record = Record(
        task_id=order.task_id, status=RUNNING, until=now + order.lease, mark=making.mark, attempt=making.attempt
    )
    if not update(making.store(), order.run_key, begin(record, now), ttl=record.ttl(now)):
        logger.info("task %s: a newer task makes %s; what this one returns is not kept", request.id, order.key)
        setattr(request, _MAKING, None)
        return
    making.has_begun = True
    making.duty = Duty(
        making.store,
        order.run_key,
        lambda old: renew(making.mark, time.time() + order.lease)(old),
        ttl=record.ttl(now),
        every=order.lease / RENEWALS_PER_LEASE,
        owner=request,
        what=f"the cached result of task {request.id}",
    )
    renewer.add(making.duty)
    # Before the task looks at its data: what is invalidated from here on, it may not have seen.
    if order.tags:
        making.versions = versions_now(cache_at(order.cache), order.tags, kept_for=order.kept_for)


@harmless
def succeeded(request: Any, value: Any) -> None:
    """Trade the record of the run for what it has returned."""
    making: Making | None = getattr(request, _MAKING, None)
    if making is None:
        return
    if _is_sent_again(request):
        ended_without_result(request)
        return
    making.end()
    order = making.order
    kept = Kept(value, time.time(), order.task_id, order.timeout, making.versions)
    try:
        patiently(making.store(), lambda store: _trade(store, making, kept))
    except (ValueNotKeptError, StoreError) as exc:
        logger.error("task %s: its result can't be cached: %s", order.task_id, exc)
        _note_failure(making, exc)
    # Last: a soft time limit that comes meanwhile is a failure of this run.
    setattr(request, _MAKING, None)


def _trade(store: ValueStore, making: Making, kept: Kept) -> None:
    order = making.order
    for _ in range(TRIES):
        found = store.read(order.run_key)
        record = decode(found)
        if found is None or record is None or record.task_id != order.task_id:
            break
        if not making.has_begun and record.status in (PENDING, RETRYING):
            # Its mark could not be put there, and what was invalidated meanwhile, nobody could tell it. Who asks next
            # sends the task again.
            if store.swap(order.run_key, found, None, ttl=1):
                break
        elif record.mark != making.mark:
            break
        elif store.trade(order.run_key, found, order.key, pack(kept), timeout=order.kept_for):
            return
    logger.info("task %s: %s was invalidated, or a newer task makes it", order.task_id, order.key)


@harmless
def will_run_again(request: Any, when: float | datetime | None) -> None:
    """Note that the run has failed and the task will run again.

    Args:
        when: seconds until then, or the time, with its zone.
    """
    making = _take(request)
    if making is None:
        return
    next_at = when.timestamp() if isinstance(when, datetime) else time.time() + (when or 0)
    note_retry(making.order, next_at, making.put)


@harmless
def ended_without_result(request: Any) -> None:
    """Note that the run has ended by ``Ignore``: for good, or because another message goes on under its id."""
    _end_without_result(request, is_sent_again=_is_sent_again(request))


def _is_sent_again(request: Any) -> bool:
    """Say whether the run has sent a message under its own id, which makes the value now."""
    return bool(getattr(request, "taskkit_sent_again", False))


def _end_without_result(request: Any, *, is_sent_again: bool) -> None:
    making = _take(request)
    if making is None:
        return
    now = time.time()
    if is_sent_again:
        making.put(PENDING, now + making.order.lock_timeout)
    else:
        until = now + making.order.failure_kept_for
        making.put(FAILED, until, error_kind="celery.exceptions.Ignore", error_message="the task has ended itself")


@harmless
def replaced(request: Any, signature: Any) -> None:
    """Have the value made by the part of ``signature`` that has the task's id, the last of a chain say."""
    making: Making | None = getattr(request, _MAKING, None)
    heir = None if making is None else _with_id(signature, request.id)
    if making is not None and heir is not None:
        heir["options"]["headers"] = {**(heir["options"].get("headers") or {}), RESULT_HEADER: making.order.header()}
        _end_without_result(request, is_sent_again=True)


def _with_id(signature: Any, task_id: object) -> Any:
    """Return the innermost part of a signature that has this id; None if there is none."""
    parts = [*(getattr(signature, "tasks", None) or ()), getattr(signature, "body", None)]
    inner = (_with_id(part, task_id) for part in parts if part is not None)
    found = next((part for part in inner if part is not None), None)
    is_it = found is None and signature.get("options", {}).get("task_id") == task_id
    return signature if is_it else found


@harmless
def failed(request: Any, exc: BaseException, *, is_dead_letter: bool) -> None:
    """Note that the run was the last one, in the process that ran it."""
    if _is_sent_again(request):
        ended_without_result(request)
        return
    making = _take(request)
    if making is not None:
        _note_failure(making, exc, is_dead_letter=is_dead_letter)


def _take(request: Any) -> Making | None:
    making: Making | None = getattr(request, _MAKING, None)
    if making is not None:
        setattr(request, _MAKING, None)
        making.end()
    return making


def _note_failure(making: Making, exc: BaseException, *, is_dead_letter: bool = False) -> None:
    until = time.time() + making.order.failure_kept_for
    making.put(FAILED, until, is_dead_letter=is_dead_letter, **said_of(exc))
