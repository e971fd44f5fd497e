"""Django's three signals about tasks, in their order. A receiver that raises is logged, and harms nobody else."""

from __future__ import annotations

from typing import Any

from django_taskkit.backends import rows
from django_taskkit.backends.interface import (
    InvalidTaskBackend,
    TaskError,
    TaskResult,
    task_backends,
    task_enqueued,
    task_finished,
    task_started,
)


def enqueued(result: TaskResult[Any, Any]) -> None:
    task_enqueued.send_robust(_sender(result), task_result=result)


def started(result: TaskResult[Any, Any]) -> None:
    task_started.send_robust(_sender(result), task_result=result)


def finished(result: TaskResult[Any, Any]) -> None:
    task_finished.send_robust(_sender(result), task_result=result)


def failed(task_id: str, generation: int, error: TaskError) -> None:
    """Note that a task has failed for good, and tell of it; nothing, if that is known."""
    row = rows.fail(task_id, generation, error)
    if row is not None:
        finished(rows.result_of(row))


def _sender(result: TaskResult[Any, Any]) -> type:
    try:
        return type(task_backends[result.backend])
    except InvalidTaskBackend:
        # ``TASKS`` has the alias no more, and the message is here all the same: its task is run.
        from django_taskkit.backends.backend import CeleryBackend

        return CeleryBackend
