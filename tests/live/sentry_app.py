"""The worker of test_sentry.py: as letters_app.py, and it sends to the Sentry whose DSN it is given."""

from __future__ import annotations

import os
import time

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "sentry_settings")

import harness
from celery import Celery, shared_task
from celery.exceptions import Reject

from django_taskkit.base_tasks import BaseTaskWithRetry

app = Celery("sentry")
app.conf.update(harness.celery_settings())


@shared_task(bind=True, base=BaseTaskWithRetry, name="sentry.retries", max_retries=1, retry_jitter=False)
def retries(self, order: int, password: str) -> None:
    raise ConnectionError(f"order {order}")


@shared_task(bind=True, base=BaseTaskWithRetry, name="sentry.recovers", max_retries=3, retry_jitter=False)
def recovers(self) -> None:
    if not self.request.retries:
        raise ConnectionError("once")


@shared_task(name="sentry.plain")
def plain() -> None:
    raise LookupError("plain")


@shared_task(name="sentry.killed")
def killed() -> None:
    os.kill(os.getpid(), 9)


@shared_task(name="sentry.slow", time_limit=1)
def slow() -> None:
    time.sleep(600)


@shared_task(name="sentry.rejects")
def rejects() -> None:
    raise Reject("no use", requeue=False)


@shared_task(name="sentry.done")
def done() -> str:
    return "done"
