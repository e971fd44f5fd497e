"""What ``manage.py check`` says about the project's settings and tasks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import current_app
from django.conf import settings
from django.core import checks

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError


@checks.register("django_taskkit")
def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E001: ``TASKKIT`` has an unknown key or a value that makes no sense."""
    return [
        checks.Error(problem, hint="See the settings table in docs/settings.md.", id="taskkit.E001")
        for problem in conf.problems(getattr(settings, "TASKKIT", {}))
    ]


@checks.register("django_taskkit")
def check_tasks(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E002: retry options of a task make no sense."""
    return list(_retry_options())


def _retry_options() -> Iterator[checks.CheckMessage]:
    for task in current_app.tasks.values():
        try:
            getattr(task, "retry_policy", None)
        except ConfigurationError as exc:
            yield checks.Error(str(exc), obj=task.name, id="taskkit.E002")
