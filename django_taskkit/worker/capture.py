"""The first choke point: a task's run, in whatever process runs it.

``Task.on_failure`` and the ``task_failure`` signal come too late to save a message: both are skipped when the result
backend is down, and what a signal receiver raises is swallowed. :func:`capture` runs before Celery stores a failure.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from celery import states
from celery.app.task import Context
from celery.exceptions import MaxRetriesExceededError, SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from django_taskkit import conf
from django_taskkit.base_tasks.verdicts import Permanent
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.recorder import record
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import RetryNotPublishedError
from django_taskkit.worker.holding import hold, is_to_be_held

if TYPE_CHECKING:
    from celery import Task as CeleryTask

    Task = CeleryTask[Any, Any]

logger = logging.getLogger("django_taskkit")

RECORDED = "taskkit_recorded"
"""Set on the failure that a pool process reports when there is nothing left to record for the worker."""


def wants_capture(task: Task) -> bool:
    """Say whether failures of ``task`` become dead letters."""
    choice = getattr(task, "dead_letter", None)
    return conf.current().capture == "all" if choice is None else bool(choice)


def capture(task: Task, request: Context, exc: BaseException) -> bool:
    """Record the terminal failure of a task; never raises. True if nothing is left to be recorded."""
    try:
        if request.is_eager or request.called_directly or not wants_capture(task):
            return False
        # Its retry is on the way, and only the note of it could not be stored: the task is not dead.
        if getattr(request, "taskkit_sent_again", False):
            return True
        envelope = Envelope.from_context(request, task.serializer, task.app)
        reason = reason_of(task, request, exc)
        death = Death.by_exception(envelope, exc, reason=reason, worker=request.hostname or "", task_name=task.name)
        held = is_to_be_held(task, request, envelope, reason)
        death = replace(death, body_ran=body_returned(exc) or reason is Reason.RESULT_LOST, held=held)
        recorded = record(death)
        if recorded and held:
            hold(request, death, task=task, backend=task.backend)
        return recorded
    except Exception:  # the worker goes on whatever was odd about this task
        logger.critical("task %s[%s] died and could not be captured", task.name, request.id, exc_info=True)
        return False


def reason_of(task: Task, request: Context, exc: BaseException) -> Reason:
    """Tell why a run that raised ``exc`` is the last one."""
    if body_returned(exc):
        return Reason.PUBLISH_FAILED if isinstance(exc, OperationalError) else Reason.RESULT_LOST
    if isinstance(exc, RetryNotPublishedError):
        return Reason.PUBLISH_FAILED
    if isinstance(exc, SoftTimeLimitExceeded):
        return Reason.TIME_LIMIT
    if isinstance(exc, Permanent):
        return Reason.PERMANENT
    if said := getattr(request, "taskkit_reason", ""):
        return Reason(said)
    # Not one of our tasks: Celery does not say, so the numbers have to.
    exhausted = isinstance(exc, MaxRetriesExceededError) or (
        request.retries > 0 and task.max_retries is not None and request.retries >= task.max_retries
    )
    return Reason.RETRIES_EXHAUSTED if exhausted else Reason.EXCEPTION


def body_returned(exc: BaseException) -> bool:
    """Say whether the task itself had succeeded when ``exc`` came up, so that a requeue would repeat its effects.

    That is what storing its result, or sending what follows it, raises. Celery's tracer knows it in a local variable.
    """
    tb = exc.__traceback__
    while tb is not None:
        if tb.tb_frame.f_code.co_name == "trace_task":
            return bool(tb.tb_frame.f_locals.get("state") == states.SUCCESS)
        tb = tb.tb_next
    return False
