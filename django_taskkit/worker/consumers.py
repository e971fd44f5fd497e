"""The third choke point: the consumer, where messages end that never become a task.

A step of the consumer's blueprint, so that it goes with whatever consumer class the project has. For two of the four
callbacks Celery sends no signal, and for the others after the message is gone.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from celery import bootsteps, states
from celery.app.task import Context
from celery.exceptions import InvalidTaskError, NotRegistered
from celery.worker import state
from kombu.exceptions import ContentDisallowed

from django_taskkit.dlq.models import Reason
from django_taskkit.worker.holding import is_held, kept_from_failing
from django_taskkit.worker.outside import record_message
from django_taskkit.worker.this_consumer import note_consumer

logger = logging.getLogger("django_taskkit")


class DeadLetterStep(bootsteps.Step):  # type: ignore[misc,unused-ignore]
    """Put the recorder in front of what a consumer does with messages that are no task."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.consumer = parent
        note_consumer(parent)
        for name, before in (
            ("on_decode_error", lambda message, exc: self.record(message, Reason.UNDECODABLE, exc)),
            ("on_unknown_message", lambda body, message: self.record(message, Reason.INVALID, _NOT_A_TASK)),
            ("on_invalid_task", lambda body, message, exc: self.record(message, _reason_of(exc), exc)),
        ):
            setattr(parent, name, _first(before, getattr(parent, name)))
        self._on_unknown_task = parent.on_unknown_task
        parent.on_unknown_task = self.on_unknown_task
        self._create_task_handler = parent.create_task_handler
        parent.create_task_handler = self.create_task_handler

    def record(
        self, message: Any, reason: Reason, exc: BaseException, task_name: str = "", request: Context | None = None
    ) -> None:
        record_message(
            self.consumer.app, message, reason, exc, self.consumer.hostname, task_name=task_name, request=request
        )

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        name, request = _name_in(message), _request_of(message)
        error = NotRegistered(name)
        self.record(message, Reason.UNREGISTERED, error, task_name=name, request=request)
        try:
            if is_held(request):
                with kept_from_failing(message.headers["id"]):
                    self._on_unknown_task(body, message, exc)
                return
            self._on_unknown_task(body, message, exc)
            if request is not None and (request.chord or request.chain or request.errbacks):
                # Whom Celery leaves waiting for ever.
                self.consumer.app.backend.mark_as_failure(
                    message.headers["id"], error, request=request, state=states.FAILURE
                )
        except Exception as unexpected:
            if not message.acknowledged:
                raise
            logger.error("an unregistered task's workflow could not be told of its failure: %r", unexpected)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        handle = self._create_task_handler(*args, **kwargs)
        consumer = self.consumer

        def on_task_received(message: Any) -> Any:
            try:
                return handle(message)
            except (MemoryError, *consumer.connection_errors, *consumer.channel_errors):
                raise
            except Exception as exc:
                # What is not shaped like a message ends this worker and every one after it. Once a request was made
                # of it, though, the trouble is another's.
                if message.acknowledged or any(it.message is message for it in tuple(state.requests.values())):
                    raise
                self.record(message, Reason.INVALID, exc)
                logger.error("a message that is not shaped like a task is rejected: %r", exc)
                message.reject_log_error(logger, consumer.connection_errors)

        return on_task_received


def _request_of(message: Any) -> Context | None:
    """Return what Celery would make of a message of its second protocol, if it knew the task."""
    if "task" not in (message.headers or {}):
        return None
    try:
        _args, _kwargs, embed = message.payload
        return Context(
            {**message.headers, **(embed or {})},
            reply_to=message.properties.get("reply_to"),
            correlation_id=message.properties.get("correlation_id"),
            delivery_info=message.delivery_info or {},
        )
    except Exception:  # it has another shape, and no workflow that Celery could know
        return None


_NOT_A_TASK = InvalidTaskError("this is not a task message: it names no task")


def _name_in(message: Any) -> str:
    """Return the name of the task; a message of Celery's first protocol has it in the body."""
    headers = message.headers or {}
    if "task" in headers:
        return str(headers["task"] or "")
    payload = message.payload
    return str(payload.get("task") or "") if isinstance(payload, Mapping) else ""


def _reason_of(exc: Exception) -> Reason:
    return Reason.REFUSED_CONTENT if isinstance(exc, ContentDisallowed) else Reason.INVALID


def _first(before: Callable[..., None], method: Callable[..., Any]) -> Callable[..., Any]:
    def before_then_method(*args: Any) -> Any:
        before(*args)
        return method(*args)

    return before_then_method
