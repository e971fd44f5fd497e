"""Things that go wrong, on purpose: errors, killed processes, a broker or a database that is away."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Literal

from celery import Celery
from django.db import OperationalError, connections

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.testing.transactions import run_body

Ending = Literal["killed", "killed after run", "timed out"]


@dataclass
class Fault:
    """Errors that the next runs of a task raise, and ends that their processes find."""

    errors: list[BaseException | type[BaseException]] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)


class Faults:
    """What is to go wrong with which task."""

    def __init__(self, app: Celery) -> None:
        self._app: Any = app
        self._faults: dict[str, Fault] = {}
        self._bodies: dict[Any, dict[str, Any]] = {}

    def of(self, task: Any) -> Fault:
        return self._faults.setdefault(name_of(self._app, task), Fault())

    def next_ending(self, task_name: str) -> Ending | None:
        """Return how the process of the next run ends, if it is not to end by itself."""
        fault = self._faults.get(task_name)
        return fault.endings.pop(0) if fault and fault.endings else None

    def prepare(self, task: Any) -> None:
        """Put this between a task and its body, inside of whatever retries it; doing it twice changes nothing."""
        if task in self._bodies:
            return
        attributes = vars(task)
        # Where our loop and Celery's look for the body at each run, and Celery's tracer when it is built.
        celerys = "_orig_run" if "_orig_run" in attributes else "run"
        name = "_body" if isinstance(task, BaseTaskWithRetry) else celerys
        before = {key: attributes[key] for key in (name, "publish_pause") if key in attributes}
        body = getattr(task, name)
        attributes[name] = self._around(task.name, body)
        if hasattr(task, "publish_pause"):
            attributes["publish_pause"] = 0.0  # seconds that it would really sleep
        self._bodies[task] = {"name": name, "before": before}

    def restore(self) -> None:
        for task, kept in self._bodies.items():
            for key in (kept["name"], "publish_pause"):
                vars(task).pop(key, None)
            vars(task).update(kept["before"])
        self._bodies.clear()
        self._faults.clear()

    def _around(self, task_name: str, body: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(body)
        def run(*args: Any, **kwargs: Any) -> Any:
            fault = self._faults.get(task_name)
            if fault and fault.errors:
                error = fault.errors.pop(0)
                raise error if isinstance(error, type) else error.with_traceback(None)
            return run_body(body, args, kwargs)

        return run


def name_of(app: Any, task: Any) -> str:
    """Return the name of ``task``, which is a task, a signature or a name.

    Raises:
        ValueError: no task of the app has that name.
    """
    name = task if isinstance(task, str) else str(getattr(task, "name", None) or getattr(task, "task", ""))
    if name in app.tasks:
        return name
    close = difflib.get_close_matches(name, app.tasks, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "import the module that it is in"
    raise ValueError(f"{task!r} is no task of {app.main or 'the app'!r}; {hint}")


@contextmanager
def database_refusing() -> Iterator[None]:
    """Within the block every statement fails, on all of this thread's connections.

    Afterwards what a test case has open is usable again: nothing has really failed in it.
    """

    def refuse(*args: Any) -> Any:
        raise OperationalError("the database is down (database_down() of django_taskkit.testing)")

    all_connections: list[Any] = list(connections.all())
    spoilt = {connection.alias: connection.needs_rollback for connection in all_connections}
    try:
        with ExitStack() as stack:
            for connection in all_connections:
                stack.enter_context(connection.execute_wrapper(refuse))
            yield
    finally:
        for connection in all_connections:
            connection.needs_rollback = spoilt[connection.alias]
