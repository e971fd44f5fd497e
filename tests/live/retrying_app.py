"""The worker of test_retrying.py: tasks that are retried, put off, given up; they write a line for each run."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task
from kombu import Exchange, Queue

from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent, Snooze

app = Celery("retrying")
app.conf.update(harness.celery_settings())

HOME = app.conf.task_default_queue
LANE = f"{HOME}.lane"

if app.conf.task_default_queue_type == "quorum":
    # A queue that Celery makes by itself is a classic one, whose exchange knows no delays.
    app.conf.task_queues = [
        Queue(name, Exchange(name, type="topic"), routing_key=name, queue_arguments={"x-queue-type": "quorum"})
        for name in (HOME, LANE)
    ]


def note(task, folder: str) -> int:
    """Write down the run; return how many there were, with this one."""
    path = Path(folder, task.request.id)
    with path.open("a") as file:
        file.write(f"{task.request.retries} {task.request.hostname}\n")
    return len(path.read_text().splitlines())


@shared_task(
    base=BaseTaskWithRetry,
    name="retrying.fetch",
    bind=True,
    retry_backoff=1,
    retry_jitter=False,
    max_retries=3,
)
def fetch(self, folder: str, url: str) -> str:
    note(self, folder)
    with urlopen(url, timeout=20) as answer:  # noqa: S310 (a server of the test)
        return answer.read().decode()


@shared_task(base=BaseTaskWithRetry, name="retrying.stolen", bind=True)
def stolen(self, folder: str) -> None:
    note(self, folder)
    raise Permanent("the card was stolen")


@shared_task(base=BaseTaskWithRetry, name="retrying.early", bind=True, max_retries=1, retry_jitter=False)
def early(self, folder: str) -> str:
    run = note(self, folder)
    if run <= 3:
        raise Snooze(1, "not open yet")
    if run == 4:
        raise ConnectionError("busy")
    return "done"


@shared_task(
    base=BaseTaskWithRetry,
    name="retrying.patient",
    bind=True,
    max_retries=None,
    retry_backoff=False,
    default_retry_delay=1,
    retry_for=timedelta(seconds=4),
)
def patient(self, folder: str) -> None:
    note(self, folder)
    raise ConnectionError("still away")


@shared_task(base=BaseTaskWithRetry, name="retrying.late", bind=True, retry_backoff=300, retry_jitter=False)
def late(self, folder: str) -> None:
    note(self, folder)
    raise ConnectionError("away")


@shared_task(
    base=BaseTaskWithRetry, name="retrying.lane", bind=True, retry_queue=LANE, max_retries=2, retry_jitter=False
)
def lane(self, folder: str) -> str:
    if note(self, folder) <= 3:
        raise ConnectionError("away")
    return "done"
