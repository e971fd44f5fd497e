"""What ``manage.py check`` says where members of chords and groups are held, and that can't work or not for long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend
from django.core import checks

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.worker.capture import wants_capture

LONG_ENOUGH = timedelta(days=7)
"""How long a dead letter may well wait for somebody: a weekend, a holiday."""


def check_hold(app: Celery) -> list[checks.CheckMessage]:
    """taskkit.W007: nothing can be held, or not what was asked for. W008: the result backend forgets what waits.

    Says nothing where nobody asks for it, by ``TASKKIT["HOLD_WORKFLOWS"]`` or by ``hold = True`` of a task; a message
    header is not known before it comes.
    """
    try:
        holding = [(name, task) for name, task in sorted(app.tasks.items()) if getattr(task, "hold", None) is True]
        if not holding and not conf.current().hold_workflows:
            return []
        not_captured = [name for name, task in holding if not wants_capture(task)]
    except ConfigurationError:
        return []  # E001 says why
    try:
        backend: Any = app.backend
    except Exception as exc:
        return [_warning("W007", f"The result backend can't be loaded: {exc}", "Correct CELERY_RESULT_BACKEND.")]
    return [*_uncaptured(not_captured), *_check_backend(backend)]


def _uncaptured(names: list[str]) -> Iterator[checks.CheckMessage]:
    for name in names:
        yield _warning(
            "W007",
            "It has hold = True, and its failures are not captured: it is never held.",
            "Set dead_letter = True on the task as well, or take hold away.",
            obj=name,
        )


def _check_backend(backend: Any) -> Iterator[checks.CheckMessage]:
    if isinstance(backend, DisabledBackend):
        yield _warning(
            "W007",
            "Tasks are held when they die, and there is no result backend: Celery has no chords without one, and "
            "nobody can wait for a group.",
            "Set CELERY_RESULT_BACKEND (result_backend) to Redis or, with django-celery-results, to 'django-db'; or "
            "take HOLD_WORKFLOWS out of TASKKIT and hold off the tasks.",
        )
        return
    if not _has_chords(backend):
        yield _warning(
            "W007",
            f"The result backend {type(backend).__name__} has no chords: members of groups alone are held.",
            "If you use chords, set CELERY_RESULT_BACKEND (result_backend) to Redis or, with django-celery-results, "
            "to 'django-db'. If not, silence taskkit.W007.",
        )
        return
    has_own = hasattr(backend, "chord_expires")  # since Celery 5.7, and not of databases
    seconds: Any = backend.chord_expires if has_own else backend.expires
    if seconds and seconds < LONG_ENOUGH.total_seconds():
        name = "result_chord_expires" if has_own else "result_expires"
        yield _warning(
            "W008",
            f"The result backend forgets chords after {timedelta(seconds=float(seconds))}: a member that is held for "
            "longer and requeued then succeeds, and the body of its chord never runs.",
            f"Set CELERY_{name.upper()} ({name}) to the longest time that a dead letter may wait for you, in seconds, "
            f"{LONG_ENOUGH.days} days or more; 0 is for ever.",
        )


def _has_chords(backend: Any) -> bool:
    try:
        backend.ensure_chords_allowed()
    except NotImplementedError:
        return False
    return True


def _warning(number: str, text: str, hint: str, obj: Any = None) -> checks.CheckMessage:
    return checks.Warning(text, hint=hint, obj=obj, id=f"taskkit.{number}")
