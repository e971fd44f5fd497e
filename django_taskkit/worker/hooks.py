"""Where Celery is hooked into: two methods of its tracer, and signals that carry facts on.

``TraceInfo`` is what every pool calls with the outcome of every task, after retries, ``Ignore`` and ``Reject`` have
been told apart; :func:`install` puts the recorder in front of what it does with a failure.

The message as received reaches that place through the request: Celery sends ``task_received`` for every message
before it goes to the pool, and the body put into the request there is the object that the pool sends anyway.

A run may publish a message under its own id: a retry, or a task that it is replaced by. That message then carries the
task's fate, so it gets the generation of the one that is running, and this run decides nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from celery import signals as celery_signals
from celery.app import app_or_default
from celery.app.task import Context
from celery.app.trace import TraceInfo
from celery.exceptions import Retry

from django_taskkit import conf, signals
from django_taskkit.dlq.recorder import recover
from django_taskkit.dlq.text import class_of, message_of
from django_taskkit.envelope import GENERATION_HEADER, RAW_MESSAGE
from django_taskkit.worker.capture import capture

if TYPE_CHECKING:
    from celery import Task as CeleryTask

    Task = CeleryTask[Any, Any]


def install() -> None:
    """Hook into Celery, once per process; pool processes inherit it or run it again in their own setup."""
    # An attribute of the class is not taken for a custom header, so retries don't carry the message along.
    setattr(Context, RAW_MESSAGE, None)
    tracer: Any = TraceInfo
    tracer.handle_failure = _first(
        tracer.handle_failure, lambda info, task, request: capture(task, request, info.retval)
    )
    tracer.handle_ignore = _first(tracer.handle_ignore, lambda info, task, request: _on_end(request, note="Ignore"))
    for signal, receiver in (
        (celery_signals.task_received, _hand_over_message),
        (celery_signals.task_success, _on_success),
        (celery_signals.task_retry, _on_retry),
        (celery_signals.before_task_publish, _carry_generation),
        (celery_signals.after_task_publish, _note_same_id),
    ):
        signal.connect(receiver, dispatch_uid=f"django_taskkit{receiver.__name__}", weak=False)


def _first(method: Callable[..., Any], action: Callable[[Any, Any, Any], object]) -> Callable[..., Any]:
    """Return ``method`` with ``action`` in front of it; doing it twice changes nothing."""
    if getattr(method, "has_taskkit", False):
        return method

    @wraps(method)
    def action_then_method(self: TraceInfo, task: Task, req: Context, *args: Any, **kwargs: Any) -> Any:
        action(self, task, req)
        return method(self, task, req, *args, **kwargs)

    action_then_method.has_taskkit = True  # type: ignore[attr-defined]
    return action_then_method


def _hand_over_message(*, sender: Any = None, request: Any, **kwargs: Any) -> None:
    message = request.message
    body = message.body if request.content_type is None else request.body
    raw = (body, message.content_type, message.content_encoding, message.headers)
    # The default exchange names the queue; of others only the consumer knows which of their queues it read.
    delivery = message.delivery_info or {}
    tag = delivery.get("consumer_tag") if delivery.get("exchange") else None
    request.request_dict[RAW_MESSAGE] = (*raw, _queue_of(sender, tag) if tag else None)


def _queue_of(consumer: Any, tag: str) -> str | None:
    tags = getattr(getattr(consumer, "task_consumer", None), "_active_tags", None) or {}
    return next((queue for queue, active in tags.items() if active == tag), None)


def _on_success(*, sender: Task, **kwargs: Any) -> None:
    _on_end(sender.request)


def _on_end(request: Context, note: str = "") -> None:
    # One attribute look-up is all that a task which was never requeued pays.
    generation = getattr(request, GENERATION_HEADER, None)
    if generation and not request.is_eager and not getattr(request, "taskkit_sent_again", False):
        recover(str(request.id), generation, note=note)


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


def _running(headers: Any) -> Any:
    """Return the request of the task that is running, if ``headers`` are of a message under the same id."""
    task = app_or_default().current_worker_task
    if task is None or not headers or headers.get("id") != task.request.id:
        return None
    return task.request


def _carry_generation(*, headers: Any = None, **kwargs: Any) -> None:
    request = _running(headers)
    generation = getattr(request, GENERATION_HEADER, None)
    if generation:
        headers.setdefault(GENERATION_HEADER, generation)


def _note_same_id(*, headers: Any = None, **kwargs: Any) -> None:
    request = _running(headers)
    if request is not None:
        request.taskkit_sent_again = True
