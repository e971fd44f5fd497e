"""The task that is running in this thread, and what it sends under its own id."""

from __future__ import annotations

from typing import Any

from celery.app import app_or_default


def running_under(task_id: object) -> Any:
    """Return the request of the running task if it has this id, else None.

    A message that a task sends under its own id is its own fate: a retry, or what it is replaced by.
    """
    task = app_or_default().current_worker_task
    if task is None or not task_id or task.request.id != task_id:
        return None
    return task.request


def is_in_worker() -> bool:
    """Say whether a worker runs a task in this thread."""
    return app_or_default().current_worker_task is not None
