"""Where Celery is hooked into: its tracer, the class of its requests, its consumer, and signals that carry facts on.

``TraceInfo`` is what every pool calls with the outcome of every task that does not succeed, after retries, ``Ignore``
and ``Reject`` have been told apart; :func:`install` puts the recorder in front of what it does with a failure. Of a
success every pool tells the result backend, also the one that stores nothing.

The message as received reaches that place through the request, into which our class of it puts the message.

A run may publish a message under its own id: a retry, or a task that it is replaced by. That message then carries the
task's fate, so it gets the generation of the one that is running and where its result goes, and this run decides
nothing any more.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from celery import signals as celery_signals
from celery.app.task import Context
from celery.app.task import Task as BaseTask
from celery.app.trace import TraceInfo
from celery.backends.base import Backend
from celery.concurrency.prefork import TaskPool as Prefork
from celery.exceptions import Retry
from celery.loaders.base import BaseLoader
from celery.worker import strategy
from celery.worker.consumer import Consumer

from django_taskkit import conf, signals
from django_taskkit.dlq.recorder import recover
from django_taskkit.dlq.text import class_of, message_of
from django_taskkit.envelope import GENERATION_HEADER, RAW_MESSAGE, RESULT_HEADER
from django_taskkit.running import running_under
from django_taskkit.worker import chord_members, chords, holding
from django_taskkit.worker.capture import RECORDED, capture
from django_taskkit.worker.in_pool import PooledRequest
from django_taskkit.worker.in_process import InProcessRequest

if TYPE_CHECKING:
    from celery import Task as CeleryTask

    Task = CeleryTask[Any, Any]

STEPS = ("django_taskkit.worker.consumers:DeadLetterStep", "django_taskkit.routing.declaring:DeclareLanes")


def install() -> None:
    """Hook into Celery, once per process; pool processes inherit it or run it again in their own setup."""
    # An attribute of the class is not taken for a custom header, so retries don't carry the message along.
    setattr(Context, RAW_MESSAGE, None)
    holding.install()
    tracer: Any = TraceInfo
    tracer.handle_failure = _once(tracer.handle_failure, _capturing)
    tracer.handle_ignore = _once(tracer.handle_ignore, _ending)
    # Not by the signals task_prerun and task_success: sending them costs a task more than all else that we do with it.
    base: Any = BaseTask
    base.on_replace = _once(base.on_replace, _replacing)
    loader: Any = BaseLoader
    loader.on_task_init = _once(loader.on_task_init, _beginning)
    backend: Any = Backend
    _hook_marks(backend)
    backend.__init__ = _once(backend.__init__, _knowing_backends)
    requests: Any = strategy
    requests.create_request_cls = _once(requests.create_request_cls, _guarding)
    blueprint: Any = Consumer.Blueprint
    blueprint.default_steps = list(dict.fromkeys([*blueprint.default_steps, *STEPS]))
    chords.install()
    for signal, receiver in (
        (celery_signals.task_retry, _on_retry),
        (celery_signals.before_task_publish, _carry_headers),
        (celery_signals.after_task_publish, _note_same_id),
    ):
        signal.connect(receiver, dispatch_uid=f"django_taskkit{receiver.__name__}", weak=False)


def _once(function: Callable[..., Any], around: Callable[[Any], Callable[..., Any]]) -> Callable[..., Any]:
    """Return ``function`` with ``around`` about it; doing it twice changes nothing."""
    if getattr(function, "has_taskkit", False):
        return function
    wrapped = wraps(function)(around(function))
    wrapped.has_taskkit = True  # type: ignore[attr-defined]
    return wrapped


def _capturing(handle_failure: Callable[..., Any]) -> Callable[..., Any]:
    def capture_then_handle(self: TraceInfo, task: Task, req: Context, *args: Any, **kwargs: Any) -> Any:
        recorded = capture(task, req, self.retval)
        if (results := _results_of(req)) is not None:
            results.failed(req, self.retval, is_dead_letter=recorded)
        try:
            einfo = handle_failure(self, task, req, *args, **kwargs)
        except Exception as exc:
            if not getattr(req, "taskkit_sent_again", False):
                holding.note_on(exc, req)
                raise
            # Neither RETRY nor this could be stored. What escapes from here is a death to the worker, and it is none.
            einfo = ExceptionInfo(internal=True)
        if recorded:
            setattr(einfo, RECORDED, True)
        return einfo

    return capture_then_handle


def _beginning(on_task_init: Callable[..., Any]) -> Callable[..., Any]:
    def begin_then_init(self: BaseLoader, task_id: str, task: Task, *args: Any, **kwargs: Any) -> Any:
        if (results := _results_of(task.request)) is not None:
            results.began(task.request)
        return on_task_init(self, task_id, task, *args, **kwargs)

    return begin_then_init


def _ending(handle_ignore: Callable[..., Any]) -> Callable[..., Any]:
    def end_then_handle(self: TraceInfo, task: Task, req: Context, *args: Any, **kwargs: Any) -> Any:
        _on_end(req, note="Ignore")
        if (results := _results_of(req)) is not None:
            results.ended_without_result(req)
        return handle_ignore(self, task, req, *args, **kwargs)

    return end_then_handle


def _succeeding(mark_as_done: Callable[..., Any]) -> Callable[..., Any]:
    def mark_then_end(self: Backend, task_id: str, result: Any, request: Any = None, *args: Any, **kwargs: Any) -> Any:
        if request is not None and (results := _results_of(request)) is not None:
            results.succeeded(request, result)
        marked = mark_as_done(self, task_id, result, request, *args, **kwargs)
        if request is not None:
            _on_end(request)
        return marked

    return mark_then_end


def _knowing_backends(init: Callable[..., None]) -> Callable[..., None]:
    def init_then_hook(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        kind = type(self)
        _hook_marks(kind)  # some project's backend may have one of its own
        chord_members.install(kind)

    return init_then_hook


def _hook_marks(backend: Any) -> None:
    for name, around in (
        ("mark_as_done", _succeeding),
        ("mark_as_failure", holding.unless_held),
        ("mark_as_retry", holding.unless_held),
    ):
        mark = getattr(backend, name)
        if not hasattr(mark, "has_taskkit"):
            setattr(backend, name, _once(mark, around))


def _guarding(create_request_cls: Callable[..., Any]) -> Callable[..., Any]:
    def create_guarded_request_cls(base: Any, task: Any, pool: Any, *args: Any, **kwargs: Any) -> Any:
        made = create_request_cls(base, task, pool, *args, **kwargs)
        guard = PooledRequest if isinstance(pool, Prefork) else InProcessRequest
        return type("Request", (guard, made), {})

    return create_guarded_request_cls


def _on_end(request: Context, note: str = "") -> None:
    # One attribute look-up is all that a task which was never requeued pays.
    generation = getattr(request, GENERATION_HEADER, None)
    if generation and not request.is_eager and not getattr(request, "taskkit_sent_again", False):
        recover(str(request.id), generation, note=note)


def _aware(when: Any, app: Any) -> Any:
    """Return a time with its zone; without one it is of the app's."""
    is_naive = isinstance(when, datetime) and when.tzinfo is None
    return when.replace(tzinfo=app.timezone) if is_naive else when


def _replacing(on_replace: Callable[..., Any]) -> Callable[..., Any]:
    def tell_then_replace(self: Task, signature: Any, *args: Any, **kwargs: Any) -> Any:
        if (results := _results_of(self.request)) is not None:
            results.replaced(self.request, signature)
        return on_replace(self, signature, *args, **kwargs)

    return tell_then_replace


def _results_of(request: Any) -> Any:
    """Return what is to be told of a run whose result a ``ResultCache`` wants, else None: that is all others pay."""
    if getattr(request, RESULT_HEADER, None) is None and not request.is_eager:
        return None
    from django_taskkit.results import fulfilment

    return fulfilment


def _on_retry(*, sender: Task, request: Context, reason: Any = None, **kwargs: Any) -> None:
    # A cold shutdown says "retry" without retrying; it gives no reason.
    if not isinstance(reason, Retry):
        return
    if (results := _results_of(request)) is not None:
        results.will_run_again(request, _aware(reason.when, sender.app))
    if not signals.task_retry_scheduled.has_listeners(signals.RetryScheduled):
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
            counted=not getattr(request, "taskkit_uncounted", False),
            exception_class=class_of(exc) if exc is not None else "",
            exception_message=message_of(exc, conf.current().message_max_length) if exc is not None else "",
        ),
    )


def _carry_headers(*, headers: Any = None, **kwargs: Any) -> None:
    request = running_under((headers or {}).get("id"))
    if request is None:
        return
    for name in (GENERATION_HEADER, RESULT_HEADER):
        if value := getattr(request, name, None):
            headers.setdefault(name, value)


def _note_same_id(*, headers: Any = None, **kwargs: Any) -> None:
    request = running_under((headers or {}).get("id"))
    if request is not None:
        request.taskkit_sent_again = True
