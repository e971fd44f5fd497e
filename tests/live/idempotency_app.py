"""The worker of test_idempotency.py: tasks that write a line for each run of their body."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "spool_settings")

import harness
from celery import Celery, shared_task

from django_taskkit.base_tasks import BaseTaskWithRetry

app = Celery("idempotency")
app.conf.update(harness.celery_settings())


def note(task, folder: str) -> dict[str, str]:
    """Write down that the body runs, and return what only this run can."""
    with open(f"{folder}/runs", "a") as file:
        file.write(f"{task.request.id} {task.request.retries}\n")
    return {"by": task.request.id}


def until(folder: str, name: str) -> None:
    harness.wait_until(Path(folder, name).exists, 120)


@shared_task(base=BaseTaskWithRetry, name="idempotency.charge", bind=True, idempotency_key="order_id")
def charge(self, order_id: int, folder: str) -> dict[str, str]:
    done = note(self, folder)
    until(folder, "go")
    return done


@shared_task(
    base=BaseTaskWithRetry, name="idempotency.early", bind=True, acks_late=False, idempotency_key="order_id",
    idempotency_lease=3,
)  # fmt: skip
def early(self, order_id: int, folder: str) -> dict[str, str]:
    done = note(self, folder)
    until(folder, "go")
    return done


@shared_task(
    base=BaseTaskWithRetry, name="idempotency.long", bind=True, idempotency_key="order_id", idempotency_lease=1
)
def long(self, order_id: int, folder: str) -> dict[str, str]:
    done = note(self, folder)
    until(folder, "go")
    return done


@shared_task(
    base=BaseTaskWithRetry, name="idempotency.flaky", bind=True, retry_backoff=2, retry_jitter=False,
    idempotency_key=lambda order_id, folder: f"order-{order_id}",
)  # fmt: skip
def flaky(self, order_id: int, folder: str) -> dict[str, str]:
    done = note(self, folder)
    if self.request.retries < 2:
        raise ConnectionError("the bank is away")
    return done


@shared_task(
    base=BaseTaskWithRetry, name="idempotency.deadly", bind=True, acks_late=False, idempotency_key="order_id"
)  # fmt: skip
def deadly(self, order_id: int, folder: str) -> dict[str, str]:
    """Takes its process along, the first time."""
    done = note(self, folder)
    if not Path(folder, "died").exists():
        until(folder, "die")
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return done


@shared_task(base=BaseTaskWithRetry, name="idempotency.failing", bind=True, max_retries=0, idempotency_key="order_id")
def failing(self, order_id: int, folder: str) -> dict[str, str]:
    done = note(self, folder)
    if not Path(folder, "mended").exists():
        until(folder, "fail")
        Path(folder, "mended").touch()
        raise ConnectionError("the bank is away")
    return done


@shared_task(name="idempotency.after")
def after(result: dict[str, str], folder: str) -> str:
    """What follows in a chain."""
    with open(f"{folder}/after", "a") as file:
        file.write(f"{result['by']}\n")
    return result["by"]
