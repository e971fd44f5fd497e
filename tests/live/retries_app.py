"""The worker of test_retries_unstored.py: tasks that retry once, soon or after longer than a broker holds safely."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask

app = Celery("retries")
app.conf.update(harness.celery_settings())

SOON, LATE = 0.2, 24 * 3600


def note(folder: str, line: str) -> None:
    with open(f"{folder}/runs", "a") as file:
        file.write(f"{line}\n")


def retry_once(self, folder: str, countdown: float) -> None:
    note(folder, f"{self.name} {self.request.retries}")
    if not self.request.retries:
        raise self.retry(exc=ConnectionError("once"), countdown=countdown)


for late in (False, True):
    suffix = "_late" if late else ""
    shared_task(name=f"retries.plain{suffix}", bind=True, acks_late=late)(retry_once)
    shared_task(name=f"retries.letter{suffix}", bind=True, acks_late=late, base=DeadLetterTask)(retry_once)
    shared_task(name=f"retries.own{suffix}", bind=True, acks_late=late, base=BaseTaskWithRetry)(retry_once)


@shared_task(name="retries.end", ignore_result=True)
def end(folder: str) -> None:
    note(folder, "end")
