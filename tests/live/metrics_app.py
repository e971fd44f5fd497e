"""The worker of test_metrics.py: tasks that end in every way that is counted."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "metrics_settings")

import harness
from celery import Celery, shared_task
from celery.exceptions import Ignore

from django_taskkit.base_tasks import BaseTaskWithRetry

app = Celery("metrics")
app.conf.update(harness.celery_settings())


@shared_task(name="metrics.good")
def good(pause: float = 0.0) -> int:
    time.sleep(pause)
    return os.getpid()


@shared_task(
    bind=True, base=BaseTaskWithRetry, name="metrics.flaky", retry_backoff=1, retry_jitter=False, publish_pause=0.2
)
def flaky(self, failures: int) -> str:
    """Fails ``failures`` times."""
    if self.request.retries < failures:
        raise ConnectionError("not yet")
    return "done"


@shared_task(name="metrics.bad")
def bad(folder: str) -> str:
    """Fails until the file ``cured`` is there."""
    if not Path(folder, "cured").exists():
        raise LookupError("not cured")
    return "done"


@shared_task(name="metrics.ignored")
def ignored() -> None:
    raise Ignore


def die() -> None:
    """Only once the worker knows that the task has begun; else the pool hands it to another process by itself."""
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="metrics.killed")
def killed() -> None:
    die()


@shared_task(name="metrics.killed_once", acks_late=True, reject_on_worker_lost=True)
def killed_once(folder: str) -> str:
    """Is delivered again."""
    mark = Path(folder, "killed")
    if not mark.exists():
        mark.touch()
        die()
    return "done"


if __name__ == "__main__":
    import sys

    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
