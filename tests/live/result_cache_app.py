"""The worker of test_result_cache*.py: tasks that write a line for each run of their body, and wait until told.

What a test tells them, and what they have done, are files in a folder whose path is one of their arguments.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "result_cache_settings")

import harness
from celery import Celery, shared_task
from celery.exceptions import Reject

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.results import set_progress

app = Celery("result_cache")
app.conf.update(harness.celery_settings())


def note(task, folder: str) -> int:
    """Write down that the body runs, and return which run it is, of all in this folder."""
    path = Path(folder, "runs")
    with open(path, "a") as file:
        file.write(f"{task.request.id}\n")
    return len(path.read_text().splitlines())


def until(folder: str, name: str) -> None:
    harness.wait_until(Path(folder, name).exists, 120)


@shared_task(name="cached.quick", bind=True)
def quick(self, folder: str) -> dict[str, object]:
    return {"run": note(self, folder)}


@shared_task(name="cached.told", bind=True, base=DeadLetterTask)
def told(self, folder: str) -> dict[str, object]:
    """Ends when the file ``go-1`` is there, in its second run ``go-2``, and so on."""
    run = note(self, folder)
    until(folder, f"go-{run}")
    return {"run": run}


@shared_task(name="cached.early", bind=True)
def early(self, folder: str) -> dict[str, object]:
    """As ``told``; acknowledged before it runs, so that nobody delivers it again."""
    run = note(self, folder)
    until(folder, f"go-{run}")
    return {"run": run}


@shared_task(name="cached.deadly", bind=True, base=DeadLetterTask)
def deadly(self, folder: str) -> dict[str, object]:
    """Takes its process along, the first time."""
    run = note(self, folder)
    if run == 1:
        until(folder, "die")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"run": run}


@shared_task(name="cached.deadly_early", bind=True)
def deadly_early(self, folder: str) -> dict[str, object]:
    run = note(self, folder)
    if run == 1:
        until(folder, "die")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"run": run}


@shared_task(name="cached.failing", bind=True, base=BaseTaskWithRetry, max_retries=0)
def failing(self, folder: str, number: int = 1) -> dict[str, object]:
    """Fails until the file ``mended`` is there; then waits for ``go``."""
    run = note(self, folder)
    if not Path(folder, "mended").exists():
        raise LookupError("the data are not there yet")
    until(folder, "go")
    return {"run": run, "number": number}


@shared_task(name="cached.flaky", bind=True, base=BaseTaskWithRetry, retry_backoff=5, retry_jitter=False)
def flaky(self, folder: str) -> dict[str, object]:
    """Fails once, when it is half done."""
    run = note(self, folder)
    if run == 1:
        self.set_progress(5, 10, "half of it")
        raise ConnectionError("the bank is away")
    until(folder, "go")
    return {"run": run}


@shared_task(name="cached.large", bind=True)
def large(self, folder: str) -> bytes:
    """More than memcached takes."""
    note(self, folder)
    return os.urandom(2_000_000)


@shared_task(name="cached.odd", bind=True)
def odd(self, folder: str) -> object:
    """Returns what no cache keeps."""
    note(self, folder)
    return threading.Lock()


@shared_task(name="cached.limited", bind=True, time_limit=1)
def limited(self, folder: str) -> None:
    note(self, folder)
    set_progress(1, 3)
    until(folder, "never")


@shared_task(name="cached.rejecting", bind=True)
def rejecting(self, folder: str) -> None:
    note(self, folder)
    raise Reject("not mine", requeue=False)


@shared_task(name="cached.leaving", bind=True)
def leaving(self, folder: str) -> None:
    note(self, folder)
    sys.exit(3)


@shared_task(name="cached.idle", bind=True)
def idle(self, folder: str) -> dict[str, object]:
    """For tests whose message is never run, or late."""
    return {"run": note(self, folder)}
