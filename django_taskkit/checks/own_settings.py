"""taskkit.E001, E003, E004, W005 and W006: what ``TASKKIT`` says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import Celery
from django.conf import settings
from django.core import checks

from django_taskkit import conf
from django_taskkit.checks.registration import Messages, of_project, warning
from django_taskkit.dlq import spool_files
from django_taskkit.dlq.project import has_app
from django_taskkit.exceptions import ConfigurationError


def check_settings(**kwargs: Any) -> Messages:
    """taskkit.E001: ``TASKKIT`` has an unknown key or a value that makes no sense."""
    return [
        checks.Error(problem, hint="Correct it, or take it out: every setting has a default.", id="taskkit.E001")
        for problem in conf.problems(getattr(settings, "TASKKIT", {}))
    ]


def check_app(**kwargs: Any) -> Messages:
    """taskkit.W005: this process does not have the project's Celery app, so nothing that it sends would arrive."""
    if has_app():
        return []
    return [
        checks.Warning(
            "No Celery app is loaded: what this process sends would not reach the project's broker.",
            hint="Import the app in the __init__.py beside it: from .celery import app as celery_app",
            id="taskkit.W005",
        )
    ]


@of_project
def check_queues(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.E003 and E004: who else takes messages from the queues of ``SPOOL_QUEUE`` and ``INTAKE_QUEUES``."""
    try:
        taskkit = conf.current()
    except ConfigurationError:
        return  # E001 says why
    if taskkit.spool_queue and taskkit.spool_queue in taskkit.intake_queues:
        yield checks.Error(
            f"{taskkit.spool_queue!r} is TASKKIT['SPOOL_QUEUE'] and one of TASKKIT['INTAKE_QUEUES'] as well.",
            hint="Take it out of INTAKE_QUEUES; dead letters in the spool would become dead letters of themselves.",
            id="taskkit.E003",
        )
    consumed = _consumed_queues(app)
    for setting, names in (("SPOOL_QUEUE", [taskkit.spool_queue]), ("INTAKE_QUEUES", taskkit.intake_queues)):
        for name in names:
            if name in consumed:
                yield checks.Error(
                    f"Workers read the queue {name!r}, which TASKKIT[{setting!r}] names.",
                    hint="Take it out of task_queues and task_default_queue: the relay alone may read it. A worker "
                    "takes what is there for tasks; a task that is rejected would run once more.",
                    id="taskkit.E004",
                )


def _consumed_queues(app: Celery) -> set[str]:
    """Return the queues that a worker reads which is started without ``-Q``."""
    queues: Mapping[str, Any] | Iterable[Any] = app.conf.task_queues or ()
    names = {getattr(queue, "name", queue) for queue in queues}
    return names or {app.conf.task_default_queue}


def spool(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.W006: dead letters could not be kept while neither database nor broker takes them."""
    try:
        problem = spool_files.problem()
    except ConfigurationError:
        return  # E001 says why
    if problem:
        yield warning(
            "W006",
            f"While neither database nor broker takes them, dead letters can't be kept on this machine: {problem}.",
            "Name a folder in TASKKIT['SPOOL_DIR'] that the user of workers and relay may make and write.",
        )
