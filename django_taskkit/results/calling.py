"""Calling what a project gives to a view, sync or async, from views that are sync or async."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.db import connections, transaction

View = TypeVar("View", bound=Callable[..., Any])


def call(hook: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``hook``, which may be async, from sync code."""
    return (async_to_sync(hook) if iscoroutinefunction(hook) else hook)(*args, **kwargs)


async def acall(hook: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call ``hook`` from async code; a sync one in a thread, since it may ask the database."""
    return await (hook if iscoroutinefunction(hook) else sync_to_async(hook))(*args, **kwargs)


def outside_transactions(view: View) -> View:
    """Exempt ``view`` from ATOMIC_REQUESTS, with which Django refuses async views."""
    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
