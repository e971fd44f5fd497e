"""The failure of a held task, handed on when its row is discarded.

What Celery would have done when it died is done now: its result fails, its chord gets a failed member, what follows it
in a chain fails, and its error callbacks are called. From the message alone: the worker that ran it is gone.
"""

from __future__ import annotations

import weakref
from typing import Any

from celery import Celery
from celery.app.task import Context
from celery.utils.serialization import create_exception_cls

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.text import storable
from django_taskkit.envelope import SAFE_CONTENT, Envelope, UndecodableError
from django_taskkit.exceptions import TaskkitError

_prepared: weakref.WeakSet[Celery] = weakref.WeakSet()


class HandingOnError(TaskkitError):
    """The failure of a held task could not be handed on."""


def hand_on(dead_letter: DeadLetter, *, app: Celery | None = None) -> None:
    """Tell all that wait for ``dead_letter`` that it failed. To be called once, in the transaction that closes it.

    Error callbacks that take the request, the exception and the traceback are called here, as a worker would; the
    others are sent as tasks.

    ``app`` is the Celery app whose result backend and broker are told; by default the current one.

    Raises:
        NoAppError: no ``app`` is given, and this process has none of the project's.
        HandingOnError: nothing, or not all of it, could be told; the same call may be made again.
    """
    app = app or project_app()
    request = _request_of(dead_letter.envelope)
    _know_tasks(app)
    task: Any = app.tasks.get(dead_letter.task_name)
    ignores = bool(getattr(request, "ignore_result", False)) or bool(getattr(task, "ignore_result", False))
    try:
        (task or app).backend.mark_as_failure(
            str(request.id),
            exception_of(dead_letter),
            traceback=dead_letter.traceback or None,
            request=request,
            store_result=not ignores or bool(task and task.store_errors_even_if_ignored),
        )
    except Exception as exc:
        cause = storable(f"{type(exc).__name__}: {exc}")
        raise HandingOnError(
            f"Its failure can't be handed on to its workflow: {cause}. Try again when result backend and broker work."
        ) from exc


def exception_of(dead_letter: DeadLetter) -> Exception:
    """Return what stands for the exception that the task died of: one of the same name, with the same message.

    Who asks for the result gets the real class, where that can be imported there and takes a message.
    """
    module, _dot, name = dead_letter.exception_class.rpartition(".")
    kind: Any = create_exception_cls(name or "Exception", module or "builtins")
    return kind(dead_letter.exception_message)  # type: ignore[no-any-return]


def _request_of(envelope: Envelope) -> Context:
    """Return the request that a worker would make of the message.

    Raises:
        HandingOnError: the body, which names the workflow, can't be read.
    """
    if envelope.content_type not in SAFE_CONTENT:
        raise HandingOnError(
            f"Its failure can't be handed on: who waits for it stands in the body, which is {envelope.content_type!r}, "
            "and to read that could run code. Requeue it instead."
        )
    try:
        args, kwargs, embed = envelope.payload()
        headers, properties = envelope.headers, envelope.properties
        return Context(
            {**headers, **(embed or {})},
            id=envelope.task_id,
            args=args,
            kwargs=kwargs,
            reply_to=properties.get("reply_to"),
            correlation_id=properties.get("correlation_id"),
            properties=dict(properties),
            delivery_info={
                "exchange": envelope.exchange,
                "routing_key": envelope.routing_key,
                "priority": properties.get("priority"),
                "redelivered": False,
            },
        )
    except (UndecodableError, TypeError) as exc:
        raise HandingOnError(
            f"Its failure can't be handed on: who waits for it stands in the body, which can't be read ({exc}). "
            "Requeue it instead."
        ) from exc


def _know_tasks(app: Celery) -> None:
    """Import the project's tasks, as a worker does: an error callback that is not known here is sent as a task.

    Raises:
        HandingOnError: a module of tasks can't be imported.
    """
    if app in _prepared:
        return
    try:
        app.loader.import_default_modules()
        app.finalize(auto=True)
    except Exception as exc:
        raise HandingOnError(
            f"Its failure can't be handed on: the project's tasks can't be imported ({type(exc).__name__}: {exc})."
        ) from exc
    _prepared.add(app)
