"""Whether other processes see what is in the store, as ``manage.py check`` wants to know."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache

from django_taskkit.conf import current
from django_taskkit.stores.opening import NoStoreError, shared_store

OPTIONS: Final = ("retry_budget", "breaker", "idempotency_key")
"""The task options that need a store."""


@dataclass(frozen=True, kw_only=True)
class StoreProblem:
    """What is wrong with the store, and what to do."""

    text: str
    hint: str
    unusable: bool
    """Whether there is no store at all, and not only one that other processes don't see."""


def problems(app: Any) -> Iterator[StoreProblem]:
    """Yield what is wrong with ``SHARED_STORE`` for the tasks of ``app``; nothing if none of them needs it.

    Asks no server.

    Raises:
        ConfigurationError: ``TASKKIT`` as a whole makes no sense.
    """
    users = sorted(name for name, task in app.tasks.items() if _needs_store(task))
    if not users:
        return
    shown = ", ".join(users[:3]) + (f" and {len(users) - 3} more" if len(users) > 3 else "")
    name = current().shared_store
    try:
        shared_store()
    except NoStoreError as exc:
        yield StoreProblem(
            text=f"{exc}.",
            hint=f"{shown} need it for retry budgets, breakers or idempotency keys.",
            unusable=True,
        )
        return
    if "://" not in name and isinstance(caches[name], LocMemCache):
        yield StoreProblem(
            text=f"TASKKIT['SHARED_STORE'] is {name!r}, a cache in the memory of each process: workers share nothing.",
            hint=f"Give a cache on Redis, memcached or the database, or a URL like redis://host/0. {shown} need it for "
            "retry budgets, breakers or idempotency keys, each process of a worker now has its own.",
            unusable=False,
        )


def _needs_store(task: Any) -> bool:
    return any(getattr(task, option, None) is not None for option in OPTIONS)
