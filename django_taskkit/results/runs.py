"""How the task with a certain id stands, for whoever polls by it."""

from __future__ import annotations

import time

from asgiref.sync import sync_to_async

from django_taskkit.exceptions import StoreError
from django_taskkit.progress import progress_of, read_card
from django_taskkit.results.order import KIND, run_key_of
from django_taskkit.results.reading import look, state_of
from django_taskkit.results.records import decode
from django_taskkit.results.state import Status, TaskState
from django_taskkit.stores import PREFIX
from django_taskkit.stores.opening import store_in_cache


def look_up(alias: str, task_id: str) -> TaskState | None:
    """Return how the task stands that a ``ResultCache`` has sent; None if nothing is known of it, or any more.

    Once there is a value it is HIT, or STALE if that was long ago, also if a newer task has made it. LOST and ABSENT
    mean that nothing is on its way: who needs the value asks the ``ResultCache`` again.

    Args:
        alias: of the cache, as ``TaskState.cache`` says it.

    Raises:
        StoreError: the cache is out of reach.
    """
    try:
        card = read_card(task_id, alias)
        key = str((card or {}).get("key") or "")
        if card is None or not key.startswith(f"{PREFIX}:{KIND}:"):
            return None
        kept = look(alias, key, card.get("tags") or ())
    except StoreError:
        raise
    except Exception as exc:  # each cache has errors of its own
        raise StoreError(f"the cache {alias!r} is out of reach: {type(exc).__name__}: {exc}") from exc
    now = time.time()
    record = decode(store_in_cache(alias, "the cache of a result").read(run_key_of(key)))
    if kept is not None and kept.task_id == task_id:
        return state_of(kept, record, alias=alias, now=now, timeout=kept.timeout)
    run = state_of(None, record, alias=alias, now=now, timeout=None)
    if run.is_waiting or run.status is Status.FAILED:
        return run
    if kept is not None:
        return state_of(kept, record, alias=alias, now=now, timeout=kept.timeout)
    return TaskState(status=run.status, task_id=task_id, cache=alias, progress=progress_of(task_id, cache=alias))


async def alook_up(alias: str, task_id: str) -> TaskState | None:
    """As :func:`look_up`."""
    return await sync_to_async(look_up)(alias, task_id)
