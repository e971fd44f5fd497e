"""A message that died, by whatever way and in whatever process, is a task that failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from django.db import connections

from django_taskkit.backends import announcements, rows
from django_taskkit.backends.interface import TaskError
from django_taskkit.backends.model import FINISHED, DjangoTaskResult
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.signals import DeadLettered, task_dead_lettered

logger = logging.getLogger("django_taskkit")

UID = "django_taskkit.backends.endings"


def install() -> None:
    """Note deaths from now on; doing it twice changes nothing."""
    task_dead_lettered.connect(on_dead_letter, dispatch_uid=UID)


def uninstall() -> None:
    task_dead_lettered.disconnect(dispatch_uid=UID)


def on_dead_letter(*, event: DeadLettered, **kwargs: Any) -> None:
    """Have the result of a dead letter's task say that it failed."""
    try:
        with _connection_as_before():
            of_it = DjangoTaskResult.objects.using(rows.database()).filter(pk=event.task_id)
            if not of_it.exclude(status__in=FINISHED).exists():
                return
            letter = DeadLetter.objects.filter(pk=event.dead_letter_id).only("traceback").first()
            error = TaskError(
                exception_class_path=_path(event.exception_class), traceback=letter.traceback if letter else ""
            )
            announcements.failed(event.task_id, event.generation, error)
    except Exception:
        logger.exception("task %s is dead, and its result could not be told", event.task_id)


def _path(exception_class: str) -> str:
    """Return the path that Django's error has, where a dead letter names an exception of Python's own without it."""
    return exception_class if "." in exception_class else f"builtins.{exception_class or 'Exception'}"


@contextmanager
def _connection_as_before() -> Iterator[None]:
    """Close the connection if there was none: a worker's own process is not to keep one, and its pool to inherit it."""
    connection = connections[rows.database()]
    was_open = connection.connection is not None
    try:
        yield
    finally:
        if not was_open and not connection.in_atomic_block:
            with suppress(Exception):
                connection.close()
