"""The worker of test_outbox.py, and a producer of its own that a test may kill."""

from __future__ import annotations

import os
import signal
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import django
import harness
from celery import Celery, shared_task

from django_taskkit.base_tasks import BaseTaskWithRetry

app = Celery("outbox")
app.conf.update(harness.celery_settings())


@shared_task(name="outbox.add")
def add(*numbers: object) -> float:
    return sum(number if isinstance(number, (int, float)) else sum(number) for number in numbers)


@shared_task(bind=True, name="outbox.note")
def note(self, path: str) -> dict[str, object]:
    """Write a line for each run, and say what the message was like."""
    with open(path, "a") as file:
        file.write(f"{self.request.id}\n")
    delivery = self.request.delivery_info or {}
    return {
        "tenant": (self.request.headers or {}).get("tenant"),
        "priority": delivery.get("priority"),
        "timelimit": list(self.request.timelimit or ()),
        "expires": str(self.request.expires),
    }


@shared_task(bind=True, base=BaseTaskWithRetry, name="outbox.flaky", retry_backoff=1, retry_jitter=False)
def flaky(self, folder: str) -> int:
    """Fails once, when the file ``fail`` is there; succeeds when it is run again."""
    from pathlib import Path

    if self.request.retries:
        return self.request.retries
    Path(folder, "running").touch()
    harness.wait_until(Path(folder, "fail").exists, 60)
    raise ConnectionError("once")


def commit_and_die(path: str) -> None:
    """Change data and send a task in one transaction; die after the commit, before anything can be published."""
    from django.contrib.auth.models import Group
    from django.db import transaction

    with transaction.atomic():
        transaction.on_commit(lambda: os.kill(os.getpid(), signal.SIGKILL))
        Group.objects.create(name="paid")
        note.apply_async_on_commit((path,), outbox=True)


if __name__ == "__main__":
    django.setup()
    commit_and_die(sys.argv[1])
