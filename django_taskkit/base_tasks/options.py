"""Retry options that make no sense, found before a task needs them."""

from __future__ import annotations

from collections.abc import Iterator

from celery import Celery

from django_taskkit.base_tasks.gates.passage import gates_of
from django_taskkit.base_tasks.retry import BaseTaskWithRetry
from django_taskkit.base_tasks.rules import rules_of
from django_taskkit.exceptions import ConfigurationError


def problems(app: Celery) -> Iterator[tuple[str, str]]:
    """Yield name and complaint, one sentence, for each registered task whose options make no sense.

    They are not refused when a task is registered: Celery registers all at once when the first is called, and an
    error in the middle of that leaves the others unregistered.
    """
    for task in list(app.tasks.values()):
        if isinstance(task, BaseTaskWithRetry):
            try:
                rules_of(task)
                gates_of(task)
            except ConfigurationError as exc:
                yield task.name, str(exc)
