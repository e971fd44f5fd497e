"""What of a message a person may see without a special permission."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from celery import Celery

from django_taskkit.dlq.calls import task_of

HIDDEN = "********"

_DEPTH = 50


def redacted(value: Any, names: Sequence[str], depth: int = _DEPTH) -> Any:
    """Return a copy of ``value`` in which everything under a telling name, at any depth, is asterisks.

    Args:
        value: decoded JSON or the like.
        names: parts of names, in lower case, that tell a secret.
        depth: what is nested deeper than this is hidden as a whole.
    """
    if depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if tells_secret(key, names) else redacted(item, names, depth - 1) for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [redacted(item, names, depth - 1) for item in value]
    return value


def tells_secret(name: Any, names: Sequence[str]) -> bool:
    """Say whether ``name`` contains one of ``names``, whatever its case and however its words are joined."""
    plain = str(name).lower().replace("-", "_").replace(" ", "_")
    joined = plain.replace("_", "")
    return any(part.lower() in plain or part.lower().replace("_", "") in joined for part in names)


def named_arguments(app: Celery, task_name: str, args: Any, kwargs: Any) -> dict[str, Any]:
    """Return the arguments of a call under the names that the task's signature gives them.

    Positional arguments of a task that this process doesn't know, or that don't fit it, are numbered.
    """
    positional = list(args) if isinstance(args, (list, tuple)) else [args]
    by_name = dict(kwargs) if isinstance(kwargs, Mapping) else {"kwargs": kwargs}
    task = task_of(app, task_name)
    if task is not None:
        try:
            bound = inspect.signature(task.run).bind_partial(*positional, **by_name)
        except (TypeError, ValueError):
            pass
        else:
            return dict(bound.arguments)
    return {**{str(number): value for number, value in enumerate(positional, start=1)}, **by_name}
