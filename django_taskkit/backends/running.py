"""How a worker runs a task of Django's: RUNNING, the function, and what has become of it.

A success is noted here. A failure is noted when it has become a dead letter, by whatever way the message has died
(:mod:`endings`); here only if the task leaves none.
"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any

from celery.exceptions import Ignore
from django.utils import timezone as django_timezone

from django_taskkit import conf
from django_taskkit.backends import announcements, rows
from django_taskkit.backends.interface import (
    Task,
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
)
from django_taskkit.backends.model import DjangoTaskResult
from django_taskkit.backends.registration import find
from django_taskkit.base_tasks.retry import BaseTaskWithRetry
from django_taskkit.base_tasks.verdicts import Snooze, told_by
from django_taskkit.dlq.text import traceback_of
from django_taskkit.envelope import DJANGO_TASK_HEADER, GENERATION_HEADER, SENT_AT_HEADER

logger = logging.getLogger("django_taskkit")

_ROW = "taskkit_django_row"


class DjangoTask(BaseTaskWithRetry):
    """What Celery runs for a task of Django's.

    Django knows no retries, so a failure is final; but ``task_annotations`` may give it ``autoretry_for`` and the other
    options by its name, and the function may raise ``Retryable`` or ``Snooze``.
    """

    abstract = True
    autoretry_for = ()
    ignore_result = True
    """Django's results are in their table; Celery's backend would keep a second copy that nobody reads."""
    typing = False
    """As with Django's own backends, arguments that don't fit are a failure of the run."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Note the end of a message that its idempotency key has answered: nothing was run."""
        request: Any = self.request
        if getattr(request, _ROW, None) is None:
            _harmlessly(task_id, lambda: _answered(request, find(self.name), args, kwargs, retval))

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        row: DjangoTaskResult | None = getattr(self.request, _ROW, None)
        if row is not None:  # else a budget or a breaker has put it off, and nothing was tried
            error = None if exc is None or isinstance(exc, Snooze) else error_of(exc)
            _harmlessly(task_id, lambda: rows.run_again(row, error))

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        if not getattr(self.request, "taskkit_sent_again", False):
            generation = _whole(_header(self.request, GENERATION_HEADER))
            _harmlessly(task_id, lambda: announcements.failed(task_id, generation, error_of(exc)))


def run(celery_task: Any, task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run ``task`` for the message that ``celery_task`` is running; called directly, run it and note nothing."""
    request = celery_task.request
    if request.called_directly:
        return _call(task, _unsent(task, args, kwargs), args, kwargs)
    generation, row = _begin(request, task, args, kwargs)
    if row is None:
        done = rows.success(request.id, generation)
        if done is not None:
            # Killed before it was acknowledged: what follows a success is still to come, the letter's end above all.
            logger.info("task %s[%s] has succeeded before; it is not run again", celery_task.name, request.id)
            return done.return_value
        request.taskkit_sent_again = True  # whose end it is, others have said
        logger.info("task %s[%s] has ended, or was requeued; this is an old message", celery_task.name, request.id)
        raise Ignore
    setattr(request, _ROW, row)
    result = rows.result_of(row)
    announcements.started(result)
    try:
        value = _call(task, result, args, kwargs)
    except Ignore:
        # It has ended, and nothing has failed: a dead letter has recovered then as well. Unless it was replaced.
        if not getattr(request, "taskkit_sent_again", False):
            _succeed(request, row, generation, None)
        raise
    return _succeed(request, row, generation, value)


def _begin(
    request: Any, task: Task[Any, Any], args: Any, kwargs: dict[str, Any]
) -> tuple[int, DjangoTaskResult | None]:
    generation = _whole(_header(request, GENERATION_HEADER))
    row = rows.begin(
        request.id, generation, request.hostname or "", lambda: _columns(task, request, list(args), kwargs)
    )
    return generation, row


def _succeed(request: Any, row: DjangoTaskResult, generation: int, value: Any) -> Any:
    try:
        stored = normalize_json(value)
        done = rows.succeed(row, generation, stored)
    except BaseException:
        # The function has done its work: it is not repeated by itself, and the dead letter says so.
        request.taskkit_reason = "result_lost"
        raise
    if done is not None:
        announcements.finished(rows.result_of(done))
    return stored


def _answered(request: Any, task: Task[Any, Any], args: Any, kwargs: dict[str, Any], value: Any) -> None:
    generation, row = _begin(request, task, args, kwargs)
    if row is not None:
        announcements.started(rows.result_of(row))
        _succeed(request, row, generation, value)


def error_of(exc: BaseException) -> TaskError:
    told = told_by(exc)
    kind = type(told)
    return TaskError(
        exception_class_path=f"{kind.__module__}.{kind.__qualname__}",
        traceback=traceback_of(exc, conf.current().traceback_max_length),
    )


def _call(task: Task[Any, Any], result: TaskResult[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if task.takes_context:
        return task.call(TaskContext(task_result=result), *args, **kwargs)
    return task.call(*args, **kwargs)


def _columns(task: Task[Any, Any], request: Any, args: list[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    alias = _header(request, DJANGO_TASK_HEADER)
    sent_at = _header(request, SENT_AT_HEADER)
    enqueued_at = django_timezone.now()
    if isinstance(sent_at, (int, float)):
        enqueued_at = rows.for_database(datetime.fromtimestamp(sent_at, timezone.utc)) or enqueued_at
    return rows.columns_of(
        task,
        alias if isinstance(alias, str) else task.backend,
        normalize_json(args),
        normalize_json(kwargs),
        enqueued_at,
    )


def _unsent(task: Task[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskResult[Any, Any]:
    now = django_timezone.now()
    return TaskResult(
        task=task,
        id="",
        status=TaskResultStatus.RUNNING,
        enqueued_at=None,
        started_at=now,
        finished_at=None,
        last_attempted_at=now,
        args=list(args),
        kwargs=kwargs,
        backend=task.backend,
        errors=[],
        worker_ids=[""],
    )


def _header(request: Any, name: str) -> Any:
    """Return a header of the message; a task that is applied eagerly has them in a dict only."""
    value = getattr(request, name, None)
    return (request.headers or {}).get(name) if value is None else value


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _harmlessly(task_id: str, note: Any) -> None:
    try:
        note()
    except Exception:  # what has become of the task is decided; only the note of it is missing
        logger.exception("task %s: what has become of it could not be noted in its result", task_id)
