"""What ``manage.py check`` says about the project's settings and tasks."""

from __future__ import annotations

from typing import Any

from celery.app import app_or_default
from django.conf import settings
from django.core import checks

from django_taskkit import conf
from django_taskkit.base_tasks.options import problems


@checks.register("django_taskkit")
def check_settings(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E001: ``TASKKIT`` has an unknown key or a value that makes no sense."""
    return [
        checks.Error(problem, hint="See the settings table in docs/settings.md.", id="taskkit.E001")
        for problem in conf.problems(getattr(settings, "TASKKIT", {}))
    ]


@checks.register("django_taskkit")
def check_tasks(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E002: retry options of a task make no sense. Tasks are checked whose modules have been imported."""
    return [checks.Error(complaint, obj=name, id="taskkit.E002") for name, complaint in problems(app_or_default())]
