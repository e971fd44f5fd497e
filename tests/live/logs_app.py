"""The worker of test_logs.py: tasks that say something, by Python's logging and by Celery's."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "logs_settings")

import harness
from celery import Celery, shared_task
from celery.utils.log import get_task_logger

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.observability.logs import keep_django_logging

app = Celery("logs")
app.conf.update(harness.celery_settings())
if "TASKKIT_TEST_NO_HIJACK" in os.environ:
    app.conf.worker_hijack_root_logger = False
else:
    keep_django_logging()

logger = logging.getLogger("shop")


@shared_task(bind=True, base=BaseTaskWithRetry, name="logs.say", retry_backoff=1, retry_jitter=False)
def say(self, text: str, fail: int = 0, password: str = "") -> str:
    logger.info("said %s", text, extra={"call": {"password": password}})
    get_task_logger("shop.tasks").info("told %s", text)
    if self.request.retries < fail:
        raise ConnectionError("not yet")
    return text


@shared_task(name="logs.both")
def both(texts: list[str]) -> None:
    logger.info("said both %s", sorted(texts))


@shared_task(name="logs.dies")
def dies(folder: str) -> None:
    """Dies until the file ``cured`` is there."""
    logger.info("said dies")
    if not Path(folder, "cured").exists():
        raise LookupError("amqp://shop:hunter2@mq//")


@shared_task(name="logs.slow", time_limit=1)
def slow() -> None:
    time.sleep(600)
