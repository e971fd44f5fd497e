"""Secrets in what Sentry is sent, by the names in ``TASKKIT["REDACT"]``.

Sentry's own scrubber looks at the first level of names, and knows nothing of a task's positional arguments. These
stand without a name in the frames of Celery, of the SDK and of this package, and in the ``repr`` of the request: what
is secret by its name in the call is hidden wherever else it turns up.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from django_taskkit.dlq.privacy import HIDDEN, named_arguments
from django_taskkit.observability.logs.redaction import (
    is_secret,
    secret_names,
    text_without_secrets,
    without_secrets,
)

_LEAST = 4
"""Characters from which a secret is looked for within other texts; a shorter one would be found in any word."""

_PARTS = ("message", "logentry", "extra", "tags", "breadcrumbs", "contexts", "exception", "threads")
_DEPTH = 20


def hide_secrets(event: Any, hint: Any) -> Any:
    """Hide in ``event`` what is secret, in place; returns it, as an event processor has to."""
    names = secret_names()
    secrets = sorted(set(_secrets_of_run(names)), key=len, reverse=True)
    for part in _PARTS:
        if event.get(part):
            event[part] = _hidden(event[part], names, secrets)
    job = (event.get("extra") or {}).get("celery-job")
    if isinstance(job, dict) and isinstance(job.get("args"), (list, tuple)):
        job["args"] = _positional_hidden(job, names)
    if isinstance(request := event.get("request"), dict):
        query = request.get("query_string")
        event["request"] = without_secrets(request, names)
        if isinstance(query, str):
            event["request"]["query_string"] = text_without_secrets(f"?{query}", names)[1:]
    return event


def _hidden(value: Any, names: tuple[str, ...], secrets: list[str], depth: int = _DEPTH) -> Any:
    if isinstance(value, str):
        text = text_without_secrets(value, names)
        for secret in secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        return text
    if depth == 0:
        return HIDDEN
    if isinstance(value, Mapping):
        return {
            key: HIDDEN
            if isinstance(key, str) and item is not None and is_secret(key, names)
            else _hidden(item, names, secrets, depth - 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_hidden(item, names, secrets, depth - 1) for item in value]
    return value


def _secrets_of_run(names: tuple[str, ...]) -> Iterator[str]:
    """Give the texts in the running task's arguments that stand under a name which tells a secret."""
    state: Any = sys.modules.get("celery._state")
    task = state.get_current_worker_task() if state is not None else None
    if task is None:
        return
    yield from _texts_under(named_arguments(task.app, task.name, task.request.args, task.request.kwargs), names, False)


def _texts_under(value: Any, names: tuple[str, ...], hidden: bool, depth: int = _DEPTH) -> Iterator[str]:
    if depth == 0:
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_under(item, names, hidden or is_secret(str(key), names), depth - 1)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts_under(item, names, hidden, depth - 1)
    elif hidden and value is not None and not isinstance(value, bool) and len(str(value)) >= _LEAST:
        yield str(value)


def _positional_hidden(job: Mapping[str, Any], names: tuple[str, ...]) -> list[Any]:
    """Return the positional arguments of Sentry's note of a call, hidden by the names that the signature gives them."""
    from celery.app import app_or_default

    args = job["args"]
    named = list(named_arguments(app_or_default(), str(job.get("task_name", "")), args, {}).items())
    if len(named) != len(args):  # *args has one name for all
        return list(args)
    return [HIDDEN if is_secret(name, names) else value for name, value in named]
