"""Deaths that the task itself does not see: recorded by the worker, from the message as it was received."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.db import connections, router

from django_taskkit import conf
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import DeadLetter, Reason
from django_taskkit.dlq.recorder import record
from django_taskkit.dlq.text import shortened, storable
from django_taskkit.envelope import RAW_MESSAGE, RESULT_HEADER, Envelope
from django_taskkit.worker.capture import wants_capture
from django_taskkit.worker.holding import hold, is_to_be_held, read_note
from django_taskkit.worker.this_consumer import queue_of

if TYPE_CHECKING:
    from celery import Celery
    from django.db.models import Model
    from kombu import Message

logger = logging.getLogger("django_taskkit")


def record_request(
    request: Any,
    reason: Reason,
    exc: BaseException,
    traceback: str = "",
    *,
    body_ran: bool = False,
    is_told: bool = False,
) -> bool:
    """Record the death of a message that had become a task, a Celery ``Request``; never raises. True if it is safe.

    ``traceback`` is that of the process which ran the task; an exception loses its own on the way here. With
    ``is_told`` that process has told the task's workflow of its failure, which then can't be held any more.
    """
    recorded = False
    try:
        read_note(exc, request._context)
        if not wants_capture(request.task):
            return False
        message = request.message
        raw = request.request_dict.get(RAW_MESSAGE)
        if raw:
            envelope = Envelope.of(request.app, raw, message.properties, message.delivery_info)
        else:  # it never got as far as a request of ours
            envelope = Envelope.from_message(message, request.app, queue=queue_of(message))
        death = Death.by_exception(envelope, exc, reason=reason, worker=request.hostname, task_name=request.type)
        held = not is_told and is_to_be_held(request.task, request._context, envelope, reason)
        death = replace(death, body_ran=body_ran, held=held)
        if traceback:
            death = replace(death, traceback=shortened(storable(traceback), conf.current().traceback_max_length))
        recorded = record_death(death)
        if recorded and held and not body_ran:  # the result of one that had ended well is stored
            hold(request._context, death, task=request.task, backend=request.task.backend)
        return recorded
    except Exception:  # the worker goes on whatever was odd about this message
        logger.critical(
            "task %s[%s] died (%s) and could not be captured", request.type, request.id, reason, exc_info=True
        )
        return False
    finally:
        _tell_results(request.request_dict, request.id, exc, recorded)


def record_message(
    app: Celery,
    message: Message,
    reason: Reason,
    exc: BaseException,
    worker: str,
    task_name: str = "",
    request: Any = None,
) -> bool:
    """Record the death of a message that never became a task; never raises. True if it is safe.

    ``task_name`` is for a message whose headers don't have it, ``request`` for one whose workflow may be held.
    """
    recorded = False
    try:
        envelope = Envelope.from_message(message, app, queue=queue_of(message))
        held = request is not None and is_to_be_held(None, request, envelope, reason)
        death = Death.by_exception(envelope, exc, reason=reason, worker=worker, task_name=task_name)
        death = replace(death, held=held)
        recorded = record_death(death)
        if recorded and held:
            hold(request, death, task=None, backend=app.backend)
        return recorded
    except Exception:
        logger.critical("a message that is no task could not be captured: %r", message, exc_info=True)
        return False
    finally:
        headers = getattr(message, "headers", None)
        if isinstance(headers, Mapping):
            _tell_results(headers, headers.get("id"), exc, recorded)


def _tell_results(headers: Mapping[str, Any], task_id: object, exc: BaseException, recorded: bool) -> None:
    """Tell who waits for what the message would have returned."""
    if (header := headers.get(RESULT_HEADER)) is not None:
        from django_taskkit.results.notices import died

        died(header, task_id, exc, is_dead_letter=recorded)
        _close_connections()


def tell_of_retry(request: Any) -> None:
    """Tell who waits for the result of a task whose process was lost that Celery has sent it again."""
    if (header := request.request_dict.get(RESULT_HEADER)) is not None:
        from django_taskkit.results.notices import will_run_again_after_loss

        will_run_again_after_loss(header, request.id, float(request.task.default_retry_delay or 0))
        _close_connections()


def _close_connections() -> None:
    """Keep no connection of a cache that is in a database; see :func:`connection_closed_afterwards`."""
    with suppress(Exception):
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:
                connection.close()


def record_death(death: Death) -> bool:
    """Record ``death`` from a worker's own process, which is not to keep a database connection."""
    with connection_closed_afterwards(DeadLetter):
        return record(death)


@contextmanager
def connection_closed_afterwards(model: type[Model]) -> Iterator[None]:
    """Close the connection that the block writes to ``model`` with.

    Celery closes connections after a task, in the process that ran it. Elsewhere nobody would: it would idle for
    months, and be inherited by every pool process that is forked meanwhile.
    """
    try:
        yield
    finally:
        with suppress(Exception):
            connection = connections[router.db_for_write(model)]
            if not connection.in_atomic_block:
                connection.close()
