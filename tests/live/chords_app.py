"""The worker of test_chords.py: what chords, chains and groups are made of."""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chords_settings")

import harness
from celery import Celery, shared_task

app = Celery("chords")
app.conf.update(harness.celery_settings())


def note(line: str) -> None:
    with open(os.environ["TASKKIT_TEST_CALLS"], "a") as calls:
        calls.write(f"{line}\n")


@shared_task(name="chords.number")
def number(value: int) -> int:
    return value


@shared_task(name="chords.endless", time_limit=1)
def endless() -> None:
    """Ends by its hard time limit."""
    while True:
        time.sleep(0.1)


@shared_task(name="chords.after")
def after(path: str) -> int:
    """Waits until the file is there."""
    while not Path(path).exists():
        time.sleep(0.05)
    return 1


@shared_task(name="chords.total")
def total(values: list[int]) -> int:
    note(f"total {sum(values)}")
    return sum(values)


@shared_task(name="chords.called_with_request")
def called_with_request(request: object, exc: BaseException, traceback: object) -> None:
    """An error callback that Celery calls where the failure is noticed."""
    note(f"called for {request.id}: {type(exc).__name__}")


@shared_task(name="chords.sent_the_id")
def sent_the_id(task_id: str) -> None:
    """An error callback that Celery sends as a task."""
    note(f"sent for {task_id}")
