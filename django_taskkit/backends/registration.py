"""Each task of Django's is a Celery task, by the path of its function: routes and dead letters have its name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from importlib import import_module
from typing import Any

from celery import Celery, shared_task
from django.utils.module_loading import import_string

from django_taskkit.backends.interface import InvalidTask, Task, TaskResultMismatch

PATH_MAX_LENGTH = 255
"""Of the columns that a task's name is in."""

_registered: dict[str, Task[Any, Any]] = {}


def register(task: Task[Any, Any]) -> None:
    """Make ``task`` known to every Celery app of this process, those that are made later too.

    Raises:
        InvalidTask: the path of its function is longer than the tables take.
    """
    path = task.module_path
    if len(path) > PATH_MAX_LENGTH:
        raise InvalidTask(
            f"The task {path!r} has a path of {len(path)} characters; at most {PATH_MAX_LENGTH} are kept."
        )
    known = _registered.get(path)
    if known is None or known.func is not task.func or known.takes_context != task.takes_context:
        _registered[path] = task
    if known is None:
        shared_task(**_options(path))(_body(task))


def celery_task(app: Celery, task: Task[Any, Any]) -> Any:
    """Return the Celery task of ``app`` that runs ``task``."""
    register(task)
    path = task.module_path
    if path not in app.tasks:
        decorate: Any = app.task(shared=False, lazy=False, **_options(path))
        decorate(_body(task))
    return app.tasks[path]


def find(path: str) -> Task[Any, Any]:
    """Return the task whose function has this path; its module is imported, if nobody has so far.

    Raises:
        TaskResultMismatch: there is none.
    """
    try:
        if path not in _registered:
            import_module(path.rpartition(".")[0])
        if path in _registered:
            return _registered[path]
        found = import_string(path)
    except ImportError as exc:
        raise TaskResultMismatch(f"The result is of the task {path!r}, which can't be imported: {exc}") from exc
    if isinstance(found, Task):
        return found
    raise TaskResultMismatch(f"The result is of the task {path!r}, which is no task any more.")


def variant(task: Task[Any, Any], **changes: Any) -> Task[Any, Any]:
    """Return ``task`` as it was enqueued, as ``using()`` does, also if it would not be valid any more."""
    other = object.__new__(type(task))
    for field in fields(task):
        object.__setattr__(other, field.name, changes.get(field.name, getattr(task, field.name)))
    return other


def _options(path: str) -> dict[str, Any]:
    from django_taskkit.backends.running import DjangoTask

    return {"name": path, "base": DjangoTask, "bind": True}


def _body(task: Task[Any, Any]) -> Callable[..., Any]:
    from django_taskkit.backends.running import run

    path = task.module_path

    def body(celery_task: Any, /, *args: Any, **kwargs: Any) -> Any:
        return run(celery_task, _registered[path], args, kwargs)

    func: Any = task.func
    body.__name__, body.__qualname__, body.__module__ = func.__name__, func.__qualname__, func.__module__
    body.__doc__ = func.__doc__
    # For what looks at the names of arguments: idempotency keys, the dead letter, a call that doesn't fit.
    given = list(inspect.signature(func).parameters.values())[1 if task.takes_context else 0 :]
    own = inspect.Parameter("celery_task", inspect.Parameter.POSITIONAL_ONLY)
    if all(parameter.name != own.name for parameter in given):
        body.__signature__ = inspect.Signature([own, *given])  # type: ignore[attr-defined]
    return body
