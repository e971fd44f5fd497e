"""Task and web request in structlog's events.

    structlog.configure(processors=[structlog.contextvars.merge_contextvars, add_task_context, redact_secrets, ...])

and, in the module of the Celery app, ``bind_task_context()``. The processors import nothing of structlog.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from django_taskkit.observability.logs.context import facts_here
from django_taskkit.observability.logs.redaction import secret_names, without_secrets

Event = MutableMapping[str, Any]


def add_task_context(logger: Any, method_name: str, event_dict: Event) -> Event:
    """Add ``task_id``, ``request_id`` and the others of ``logs.context.KEYS``, where the event has none of its own."""
    try:
        facts = facts_here()
    except Exception:  # a line without ids is better than none
        return event_dict
    for name, value in facts.items():
        event_dict.setdefault(name, value)
    return event_dict


def redact_secrets(logger: Any, method_name: str, event_dict: Event) -> Event:
    """Hide what is secret by ``TASKKIT["REDACT"]``, as the JSON formatter does; put it behind all that adds something.

    An exception's traceback is looked through where a processor before this one has made a text of it
    (``format_exc_info``).
    """
    hidden: Event = without_secrets(dict(event_dict), secret_names())
    return hidden


def bind_task_context() -> None:
    """Give every run structlog context variables of its own. Call it in the module of the Celery app.

    A process or thread of a worker runs one task after the other, and what one has bound (``bind_contextvars``) would
    stand in the lines of the next. With this, a run begins with the ids of its task bound and nothing else, so that
    coroutines and ``sync_to_async`` threads have them too, and ends with nothing bound. A task that is applied eagerly
    keeps what its caller has bound.
    """
    from celery import signals

    signals.task_prerun.connect(_begin, dispatch_uid="django_taskkit.structlog_context", weak=False)
    signals.task_postrun.connect(_end, dispatch_uid="django_taskkit.structlog_context", weak=False)


def _begin(*, task: Any, **kwargs: Any) -> None:
    from structlog import contextvars

    if not task.request.is_eager:
        contextvars.clear_contextvars()
        contextvars.bind_contextvars(**facts_here())


def _end(*, task: Any, **kwargs: Any) -> None:
    from structlog import contextvars

    if not task.request.is_eager:
        contextvars.clear_contextvars()
