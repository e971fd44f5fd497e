"""The worker of test_letters.py: a Django project with django_taskkit installed, and nothing else set up."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task

from django_taskkit.base_tasks import BaseTaskWithRetry

app = Celery("letters")
app.conf.update(harness.celery_settings())


def note(folder: str, **facts: object) -> None:
    with open(Path(folder, "runs.jsonl"), "a") as runs:
        runs.write(json.dumps({"at": time.time(), **facts}) + "\n")


@shared_task(
    bind=True,
    base=BaseTaskWithRetry,
    name="letters.retrying",
    max_retries=2,
    retry_jitter=False,
    publish_pause=0.2,
)
def retrying(self, folder: str) -> str:
    """Fails until the file ``cured`` is there."""
    note(folder, delay=getattr(self.request, "taskkit_previous_delay", 0), retries=self.request.retries)
    if not Path(folder, "cured").exists():
        raise ConnectionError("not cured")
    return "done"


@shared_task(name="letters.plain")
def plain(folder: str, **options: object) -> str:
    """The same without a base class."""
    note(folder)
    if not Path(folder, "cured").exists():
        raise LookupError("not cured")
    return "done"


@shared_task(
    bind=True,
    base=BaseTaskWithRetry,
    name="letters.interrupted",
    retry_jitter=False,
    publish_pause=0.2,
    outbox=False,
)
def interrupted(self, folder: str) -> str:
    """Waits until the file ``fail`` is there, fails once, and succeeds when it is run again."""
    note(folder, retries=self.request.retries)
    if Path(folder, "failed").exists():
        return "done"
    while not Path(folder, "fail").exists():
        time.sleep(0.05)
    Path(folder, "failed").touch()
    raise ConnectionError("the broker is gone as well")
