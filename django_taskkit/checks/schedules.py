"""What beat is told to send, and by whose clock."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.schedules import BaseSchedule, crontab
from django.apps import apps
from django.conf import settings as django_settings
from django.core.checks import CheckMessage

from django_taskkit.checks.configuration import settings_of, written
from django_taskkit.checks.registration import error, warning

KNOWN = ("task", "schedule", "args", "kwargs", "options", "relative")


def entries_of(app: Celery) -> Mapping[Any, Any]:
    schedule: Any = settings_of(app).beat_schedule
    return schedule if isinstance(schedule, Mapping) else {}


def scheduler_without_its_app(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E019: beat keeps its schedule in tables that are not there."""
    scheduler = settings_of(app).beat_scheduler
    is_theirs = isinstance(scheduler, str) and scheduler.startswith("django_celery_beat")
    if is_theirs and not apps.is_installed("django_celery_beat"):
        yield error(
            "E019",
            f"{written(app, 'beat_scheduler')} is {scheduler!r}, and django_celery_beat is not in INSTALLED_APPS.",
            'Add "django_celery_beat" to INSTALLED_APPS and run migrate.',
        )


def malformed(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E020: beat ends with an error at its start, because of one entry."""
    setting = written(app, "beat_schedule")
    for name, entry in entries_of(app).items():
        if isinstance(entry, Mapping) and (complaint := _complaint(entry)):
            yield error(
                "E020", f"{setting} has an entry {name!r} {complaint[0]}: beat ends at its start.", complaint[1]
            )
        elif not isinstance(entry, Mapping) and not hasattr(entry, "schedule"):
            yield error("E020", f"{setting} has an entry {name!r} that is a {type(entry).__name__}: beat ends at its "
                        "start.", 'Give a dict: {"task": "orders.tasks.send", "schedule": 60}.')  # fmt: skip


def _complaint(entry: Mapping[Any, Any]) -> tuple[str, str] | None:
    for key in ("task", "schedule"):
        if entry.get(key) is None:
            return f"without {key!r}", f"Add {key!r} to it."
    if unknown := sorted(str(key) for key in entry if key not in KNOWN):
        return (
            f"with {unknown[0]!r}, which is no part of one",
            f"An entry has {', '.join(KNOWN)}; others go in options.",
        )
    schedule = entry["schedule"]
    if isinstance(schedule, (int, float, timedelta, BaseSchedule)) and not isinstance(schedule, bool):
        return None
    if callable(schedule) or hasattr(schedule, "is_due"):
        return None
    return f"whose schedule is a {type(schedule).__name__}", "Give seconds, a timedelta, crontab(...) or solar(...)."


def unknown_tasks(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W046: beat sends a task that no worker of this project knows. All task modules must be imported."""
    for name, entry in entries_of(app).items():
        task = entry.get("task") if isinstance(entry, Mapping) else getattr(entry, "task", None)
        if isinstance(task, str) and task not in app.tasks:
            close = difflib.get_close_matches(task, list(app.tasks), n=1)
            yield warning(
                "W046",
                f"{written(app, 'beat_schedule')} sends {task!r} ({name!r}), and no module registers such a task"
                + (f"; did you mean {close[0]!r}?" if close else "."),
                "Correct the name, or name its module in CELERY_IMPORTS (imports). Silence taskkit.W046 if another "
                "project's workers run it.",
            )


def two_clocks(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W047: times of day are in another zone than those of the rest of the project."""
    has_beat_tables = apps.is_installed("django_celery_beat")
    schedules = [entry.get("schedule") for entry in entries_of(app).values() if isinstance(entry, Mapping)]
    if not has_beat_tables and not any(isinstance(schedule, crontab) for schedule in schedules):
        return
    beats, projects = str(app.timezone), django_settings.TIME_ZONE
    if beats != projects and not _is_utc(beats, projects):
        yield warning(
            "W047",
            f"Beat's times of day are in {beats}, those of Django in {projects}.",
            f"Set {written(app, 'timezone')} = TIME_ZONE. If it is meant so, silence taskkit.W047.",
        )


def _is_utc(*zones: str) -> bool:
    return {zone.upper().rpartition("/")[2] for zone in zones} <= {"UTC", "UNIVERSAL", "ZULU", "UCT"}
