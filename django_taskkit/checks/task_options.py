"""taskkit.E002, E006, E007, W001, W007, W008 and W010 to W013: what tasks and result caches are told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from celery import Celery
from django.conf import settings
from django.core import checks
from django.urls import get_resolver

from django_taskkit.base_tasks.options import problems, store_problems, unused
from django_taskkit.checks.configuration import own_tasks
from django_taskkit.checks.registration import Messages, of_project
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.worker.hold_checks import check_hold


@of_project
def check_tasks(app: Celery) -> Messages:
    """taskkit.E002, E006: options of a task, or the store they need, make no sense; W007, W008: holding won't work.

    Tasks are checked whose modules have been imported.
    """
    return of_tasks(app)


def of_tasks(app: Celery) -> list[checks.CheckMessage]:
    """Return what is to be said of the tasks that are registered now."""
    wrong = [checks.Error(complaint, obj=name, id="taskkit.E002") for name, complaint in problems(app)]
    return [*wrong, *of_store(app, unusable=True), *check_hold(app)]


def of_store(app: Celery, *, unusable: bool) -> list[checks.CheckMessage]:
    """taskkit.E006: ``SHARED_STORE`` is nothing that tasks could share; W010: other processes don't see it."""
    try:
        found = [problem for problem in store_problems(app) if problem.unusable is unusable]
    except ConfigurationError:
        return []  # E001 says why
    if unusable:
        return [checks.Error(problem.text, hint=problem.hint, id="taskkit.E006") for problem in found]
    return [checks.Warning(problem.text, hint=problem.hint, id="taskkit.W010") for problem in found]


def store_of_one_process(app: Celery) -> list[checks.CheckMessage]:
    """taskkit.W010, where there is no E006."""
    return [] if of_store(app, unusable=True) else of_store(app, unusable=False)


def unused_options(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.W011: an option of BaseTaskWithRetry is set on a task that is none."""
    for name, option in unused(app):
        yield checks.Warning(
            f"Its option {option} does nothing.",
            hint="Give it base=BaseTaskWithRetry, whose option that is; silence taskkit.W011 if it is somebody else's.",
            obj=name,
            id="taskkit.W011",
        )


def acknowledged_early(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.W001: a task is acknowledged before it runs, so that a worker that is killed takes it along."""
    for name, task in own_tasks(app):
        if not task.acks_late:
            yield checks.Warning(
                "Its message is acknowledged before it runs: a worker that is killed as a whole takes it along.",
                hint="Make the task safe to run twice and set acks_late=True, or base it on DeadLetterTask or "
                "BaseTaskWithRetry, which do. If it must not run twice, silence taskkit.W001.",
                obj=name,
                id="taskkit.W001",
            )


@of_project
def check_result_caches(app: Celery) -> Messages:
    """taskkit.E007, W012 and W013: of each ``ResultCache``, if the project has any."""
    _import_views()
    if "django_taskkit.results.cache" not in sys.modules:
        return []
    from django_taskkit.results.checks import check_results

    return check_results()


def _import_views() -> None:
    """What views declare is not there before; the commands that check import them anyway."""
    if getattr(settings, "ROOT_URLCONF", None):
        with suppress(Exception):  # which Django's own checks tell
            _: Any = get_resolver().url_patterns
