"""The first choke point: a task's run, in whatever process runs it.

Celery stores a failure in ``TraceInfo.handle_failure``, on every pool and for every task, after retries,
``Ignore`` and ``Reject`` have been told apart. :func:`install` puts the recorder in front of it. ``Task.on_failure``
and the ``task_failure`` signal come too late for that: both are skipped when the result backend is down, and
what a signal receiver raises is swallowed.

The message as received reaches that place through the request: Celery sends ``task_received`` for every message
before it goes to the pool, and the body put into the request there is the object that the pool sends anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from celery import signals as celery_signals
from celery.app.task import Context
from celery.app.trace import TraceInfo
from celery.exceptions import MaxRetriesExceededError, Retry, SoftTimeLimitExceeded

from django_taskkit import conf, signals
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.recorder import record, recover
from django_taskkit.dlq.text import class_of, message_of
from django_taskkit.envelope import GENERATION_HEADER, RAW_MESSAGE, Envelope
from django_taskkit.exceptions import RetryNotPublishedError

if TYPE_CHECKING:
    from celery import Task as CeleryTask

    Task = CeleryTask[Any, Any]

logger = logging.getLogger("django_taskkit")


def install() -> None:
    """Hook into Celery, once per process; pool processes inherit it or run it again in their own setup."""
    # An attribute of the class is not taken for a custom header, so retries don't carry the message along.
    setattr(Context, RAW_MESSAGE, None)
    TraceInfo.handle_failure = _recording(TraceInfo.handle_failure)  # type: ignore[method-assign]
    celery_signals.task_received.connect(_hand_over_message, dispatch_uid="django_taskkit.message", weak=False)
    celery_signals.task_success.connect(_on_success, dispatch_uid="django_taskkit.success", weak=False)
    celery_signals.task_retry.connect(_on_retry, dispatch_uid="django_taskkit.retry", weak=False)


def _recording(handle_failure: Callable[..., Any]) -> Callable[..., Any]:
    if getattr(handle_failure, "records_dead_letters", False):
        return handle_failure

    @wraps(handle_failure)
    def record_then_handle(self: TraceInfo, task: Task, req: Context, *args: Any, **kwargs: Any) -> Any:
        capture(task, req, self.retval)
        return handle_failure(self, task, req, *args, **kwargs)

    record_then_handle.records_dead_letters = True  # type: ignore[attr-defined]
    return record_then_handle


def wants_capture(task: Task) -> bool:
    """Say whether failures of ``task`` become dead letters."""
    choice = getattr(task, "dead_letter", None)
    return conf.current().capture == "all" if choice is None else bool(choice)


def capture(task: Task, request: Context, exc: BaseException) -> bool:
    """Record the terminal failure of a task; never raises. True if it is in the table."""
    try:
        if request.is_eager or request.called_directly or not wants_capture(task):
            return False
        envelope = Envelope.from_context(request, task.serializer, task.app)
        worker = request.hostname or ""
        return record(Death.by_exception(envelope, exc, reason=reason_of(task, request, exc), worker=worker))
    except Exception:  # the worker goes on whatever was odd about this task
        logger.critical("task %s[%s] died and could not be captured", task.name, request.id, exc_info=True)
        return False


def reason_of(task: Task, request: Context, exc: BaseException) -> Reason:
    """Tell why a run that raised ``exc`` is the last one."""
    if isinstance(exc, RetryNotPublishedError):
        return Reason.PUBLISH_FAILED
    if isinstance(exc, SoftTimeLimitExceeded):
        return Reason.TIME_LIMIT
    exhausted = getattr(request, "taskkit_exhausted", None)
    if exhausted is None:  # not one of our tasks: Celery does not say, so the numbers have to
        exhausted = isinstance(exc, MaxRetriesExceededError) or (
            request.retries > 0 and task.max_retries is not None and request.retries >= task.max_retries
        )
    return Reason.RETRIES_EXHAUSTED if exhausted else Reason.EXCEPTION


def _hand_over_message(*, request: Any, **kwargs: Any) -> None:
    message = request.message
    body = message.body if request.content_type is None else request.body
    request.request_dict[RAW_MESSAGE] = (
        body,
        message.content_type,
        message.content_encoding,
        message.headers,
    )


def _on_success(*, sender: Task, **kwargs: Any) -> None:
    request = sender.request
    # One attribute look-up is all that a task which was never requeued pays.
    generation = getattr(request, GENERATION_HEADER, None)
    if generation and not request.is_eager:
        recover(str(request.id), generation)


def _on_retry(*, sender: Task, request: Context, reason: Any = None, **kwargs: Any) -> None:
    # A cold shutdown says "retry" without retrying; it gives no reason.
    if not isinstance(reason, Retry) or not signals.task_retry_scheduled.has_listeners(signals.RetryScheduled):
        return
    exc = reason.exc
    delay = reason.when if isinstance(reason.when, (int, float)) else None
    signals.announce(
        signals.task_retry_scheduled,
        signals.RetryScheduled(
            task_id=str(request.id),
            task_name=sender.name,
            attempt=request.retries + 1,
            delay=delay,
            exception_class=class_of(exc) if exc is not None else "",
            exception_message=message_of(exc, conf.current().message_max_length) if exc is not None else "",
        ),
    )
