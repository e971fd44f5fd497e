"""The worker of tests that kill, stop or cut off whole workers: each task writes down its runs, in a file."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask

app = Celery("endings")
app.conf.update(harness.celery_settings())


def note(folder: str, name: str, what: str) -> None:
    with open(Path(folder, "ledger.jsonl"), "a") as ledger:
        ledger.write(json.dumps({"name": name, "what": what}) + "\n")


def count(folder: str | Path, name: str, what: str = "began") -> int:
    """How often a task did it, so far."""
    ledger = Path(folder, "ledger.jsonl")
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return lines.count(json.dumps({"name": name, "what": what}))


def wait_for(file: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not file.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def deadly(name: str, end: Callable[[], object]) -> Callable[[str, str], str]:
    """A task that ends its process, and maybe others, until the file ``cured`` is there."""

    def body(folder: str, name: str) -> str:
        note(folder, name, "began")
        if not Path(folder, "cured").exists():
            # Celery gives a task once more to its pool, uncounted, when a process dies before the worker has even
            # seen that it wrote the task to it. Meanwhile the worker also takes what is behind this one.
            time.sleep(1)
            end()
        note(folder, name, "ended")
        return name

    body.__name__ = name
    return body


def kill_group() -> None:
    """kill -9 of the worker's whole process group, as a container that is out of memory ends."""
    assert harness.celery_settings(), "not in a worker: whose group would that be?"
    os.killpg(os.getpgrp(), signal.SIGKILL)


def run_until_told(folder: str, name: str) -> str:
    """Runs until the file that is named as the task is there."""
    note(folder, name, "began")
    wait_for(Path(folder, name))
    note(folder, name, "ended")
    return name


def succeed(folder: str, name: str) -> str:
    note(folder, name, "began")
    note(folder, name, "ended")
    return name


def fail(folder: str, name: str) -> str:
    note(folder, name, "began")
    raise LookupError(name)


def fail_once(folder: str, name: str) -> str:
    """Fails the first time."""
    note(folder, name, "began")
    if count(folder, name) == 1:
        raise ConnectionError(name)
    note(folder, name, "ended")
    return name


kill_worker = deadly("kill_worker", kill_group)
kill_child = deadly("kill_child", lambda: os.kill(os.getpid(), signal.SIGKILL))
exit_child = deadly("exit_child", lambda: os._exit(1))
leave = deadly("leave", lambda: sys.exit(3))

for body in (kill_worker, kill_child, exit_child, leave, run_until_told, succeed, fail):
    shared_task(body, name=f"endings.{body.__name__}")
    shared_task(body, name=f"endings.{body.__name__}_late", base=DeadLetterTask)
shared_task(kill_child, name="endings.kill_child_once", base=DeadLetterTask, delivery_limit=1)
shared_task(kill_child, name="endings.kill_child_twice", base=DeadLetterTask, delivery_limit=2)
at_once = {"base": BaseTaskWithRetry, "retry_backoff": 0.1, "retry_jitter": False}
shared_task(fail_once, name="endings.fail_once", acks_late=False, **at_once)
shared_task(fail_once, name="endings.fail_once_late", **at_once)
