"""Options of tasks that make no sense, found before a task needs them.

What they mean is imported when somebody asks; a project of plain Celery tasks has no other use for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from celery import Celery

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django_taskkit.stores.visibility import StoreProblem

GATES = ("retry_budget", "breaker", "idempotency_key")
"""Options that put a gate before the body, and make use of the store that workers share."""

NEED_THE_BASE = ("retry_policies", "retry_for", "retry_in", "on_retries_exhausted", "retry_queue", *GATES)
"""Options that mean nothing to a task that isn't a BaseTaskWithRetry."""


def problems(app: Celery) -> Iterator[tuple[str, str]]:
    """Yield name and complaint, one sentence, for each registered task whose options make no sense.

    They are not refused when a task is registered: Celery registers all at once when the first is called, and an
    error in the middle of that leaves the others unregistered.
    """
    from django_taskkit.base_tasks.dead_letter import DeadLetterTask
    from django_taskkit.base_tasks.functions import FUNCTIONS, problem
    from django_taskkit.base_tasks.gates.passage import gates_of
    from django_taskkit.base_tasks.retry import BaseTaskWithRetry
    from django_taskkit.base_tasks.rules import rules_of

    for task in list(app.tasks.values()):
        if isinstance(task, DeadLetterTask):
            yield from ((task.name, f"{task.name}: {complaint}") for complaint in _of_messages(task))
        if isinstance(task, BaseTaskWithRetry):
            found = (problem(task, name) for name in FUNCTIONS)
            yield from ((task.name, f"{task.name}: {complaint}") for complaint in found if complaint)
            try:
                rules_of(task)
                gates_of(task)
            except ConfigurationError as exc:
                yield task.name, str(exc)


def unused(app: Celery) -> Iterator[tuple[str, str]]:
    """Yield name and option of each task that has an option of BaseTaskWithRetry and another base class."""
    from django_taskkit.base_tasks.retry import BaseTaskWithRetry

    for task in list(app.tasks.values()):
        if not isinstance(task, BaseTaskWithRetry):
            yield from ((task.name, option) for option in NEED_THE_BASE if getattr(task, option, None) is not None)


def store_problems(app: Celery) -> Iterator[StoreProblem]:
    """Yield what is wrong with ``SHARED_STORE`` for the tasks of ``app``; nothing if none of them needs it.

    Raises:
        ConfigurationError: ``TASKKIT`` as a whole makes no sense.
    """
    tasks = list(app.tasks.values())
    if any(getattr(task, option, None) is not None for task in tasks for option in GATES):
        from django_taskkit.stores import visibility

        yield from visibility.problems(app)


def _of_messages(task: Any) -> Iterator[str]:
    limit, outbox, mode = task.delivery_limit, getattr(task, "outbox", None), getattr(task, "unsafe_arguments", None)
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        yield f"delivery_limit: {limit!r} makes no sense; give a whole number, 0 for no limit, or None"
    if outbox not in (None, True, False):
        yield f"outbox: {outbox!r} makes no sense; give True, False or None"
    if mode is not None and mode not in conf.CHOICES["unsafe_arguments"]:
        choices = ", ".join(map(repr, conf.CHOICES["unsafe_arguments"]))
        yield f"unsafe_arguments: {mode!r} makes no sense; give one of {choices}"
