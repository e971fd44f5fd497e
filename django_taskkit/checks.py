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
        checks.Error(
            problem, hint="The settings are described in docs/settings.md of django-taskkit.", id="taskkit.E001"
        )
        for problem in conf.problems(getattr(settings, "TASKKIT", {}))
    ]


@checks.register("django_taskkit")
def check_tasks(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E002: retry options of a task make no sense. Tasks are checked whose modules have been imported."""
    return [checks.Error(complaint, obj=name, id="taskkit.E002") for name, complaint in problems(app_or_default())]


@checks.register("django_taskkit", deploy=True)
def check_all_tasks(**kwargs: Any) -> list[checks.CheckMessage]:
    """taskkit.E002 for tasks in modules that nothing has imported yet; a worker imports them all.

    Only with ``check --deploy``: a task module that asks the database when it is imported must not break ``migrate``.
    """
    app = app_or_default()
    known = set(problems(app))
    app.loader.import_default_modules()
    return [
        checks.Error(complaint, obj=name, id="taskkit.E002")
        for name, complaint in problems(app)
        if (name, complaint) not in known
    ]
