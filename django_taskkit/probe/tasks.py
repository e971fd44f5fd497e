"""Tasks that die, each in its own way, and succeed once they are cured; only a probe's own worker knows them.

They are cured by a file. Each returns what it was given, so that a message that came back changed is noticed.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from celery import Task, shared_task, states
from celery.backends.base import DisabledBackend
from celery.exceptions import Reject

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask, Permanent

PREFIX = "taskkit.probe."
FOLDER_VARIABLE = "TASKKIT_PROBE_FOLDER"

LONGEST = 600
"""Seconds after which a task that waits to be cured gives up, should the probe be gone."""


class EarlyTask(Task):  # type: ignore[misc,type-arg,unused-ignore]
    """Acknowledged before it runs, whatever the project's settings say."""

    abstract = True
    acks_late = False
    reject_on_worker_lost = False
    ignore_result = False
    max_retries = 0


class Fatal(BaseException):
    """Neither an Exception nor one of Python's own."""


class BackendDown(DisabledBackend):  # type: ignore[misc,unused-ignore]
    """A result backend that nobody can reach."""

    def store_result(self, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> None:
        # With task_track_started Celery stores this before the body; the case is about what follows it.
        if state != states.STARTED and not cured():
            raise ConnectionError("the probe's result backend is down")

    def mark(self, *args: Any, **kwargs: Any) -> None:
        if not cured():
            raise ConnectionError("the probe's result backend is down")

    mark_as_done = mark_as_failure = mark_as_retry = mark


class WithoutBackend(EarlyTask):
    abstract = True
    backend = property(lambda self: BackendDown(app=self.app))


class LateWithoutBackend(DeadLetterTask):
    abstract = True
    backend = WithoutBackend.backend


class FailingHooks(EarlyTask):
    abstract = True

    def on_failure(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("on_failure raised")


class FailingStart(EarlyTask):
    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        if not cured():
            raise RuntimeError("before_start raised")


class FailingRetry(BaseTaskWithRetry):
    abstract = True

    def on_retry(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("on_retry raised")


def cured() -> bool:
    return Path(os.environ[FOLDER_VARIABLE], "cured").exists()


def wait_for_cure() -> None:
    deadline = time.monotonic() + LONGEST
    while not cured() and time.monotonic() < deadline:
        time.sleep(0.05)


@shared_task(name=f"{PREFIX}exception", base=EarlyTask)
def exception(value: str) -> str:
    if not cured():
        raise LookupError("not cured")
    return value


@shared_task(name=f"{PREFIX}retries", base=BaseTaskWithRetry, max_retries=1, retry_jitter=False)
def retries(value: str) -> str:
    return str(exception.run(value))


@shared_task(name=f"{PREFIX}permanent", base=BaseTaskWithRetry)
def permanent(value: str) -> str:
    if not cured():
        raise Permanent("not cured")
    return value


@shared_task(name=f"{PREFIX}deadline", base=BaseTaskWithRetry, retry_backoff=60, retry_for=5)
def deadline(value: str) -> str:
    return str(exception.run(value))


@shared_task(name=f"{PREFIX}soft_time_limit", base=EarlyTask, soft_time_limit=1)
def soft_time_limit(value: str) -> str:
    wait_for_cure()
    return value


@shared_task(name=f"{PREFIX}hard_time_limit", base=EarlyTask, time_limit=2)
def hard_time_limit(value: str) -> str:
    wait_for_cure()
    return value


@shared_task(name=f"{PREFIX}killed", base=EarlyTask)
def killed(value: str) -> str:
    if not cured():
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@shared_task(name=f"{PREFIX}killed_late", base=DeadLetterTask, delivery_limit=2)
def killed_late(value: str) -> str:
    return str(killed.run(value))


@shared_task(name=f"{PREFIX}os_exit", base=EarlyTask)
def os_exit(value: str) -> str:
    if not cured():
        os._exit(1)
    return value


@shared_task(name=f"{PREFIX}system_exit", base=EarlyTask)
def system_exit(value: str) -> str:
    if not cured():
        sys.exit("not cured")
    return value


@shared_task(name=f"{PREFIX}keyboard_interrupt", base=EarlyTask)
def keyboard_interrupt(value: str) -> str:
    if not cured():
        raise KeyboardInterrupt
    return value


@shared_task(name=f"{PREFIX}base_exception", base=EarlyTask)
def base_exception(value: str) -> str:
    if not cured():
        raise Fatal("not cured")
    return value


@shared_task(name=f"{PREFIX}memory_error", base=EarlyTask)
def memory_error(value: str) -> str:
    if not cured():
        raise MemoryError("not cured")
    return value


@shared_task(name=f"{PREFIX}memory_error_late", base=DeadLetterTask)
def memory_error_late(value: str) -> str:
    return str(memory_error.run(value))


@shared_task(name=f"{PREFIX}reject", base=EarlyTask)
def reject(value: str) -> str:
    if not cured():
        raise Reject("not cured", requeue=False)
    return value


@shared_task(name=f"{PREFIX}reject_late", base=DeadLetterTask)
def reject_late(value: str) -> str:
    return str(reject.run(value))


@shared_task(name=f"{PREFIX}reject_requeue", base=EarlyTask)
def reject_requeue(value: str) -> str:
    if not cured():
        raise Reject("not cured", requeue=True)
    return value


@shared_task(name=f"{PREFIX}reject_for_ever", base=DeadLetterTask, delivery_limit=2)
def reject_for_ever(value: str) -> str:
    return str(reject_requeue.run(value))


@shared_task(name=f"{PREFIX}unserialisable", base=EarlyTask)
def unserialisable(value: str) -> Any:
    return value if cured() else object()


@shared_task(name=f"{PREFIX}backend_down_failure", base=WithoutBackend)
def backend_down_failure(value: str) -> str:
    return str(exception.run(value))


@shared_task(name=f"{PREFIX}backend_down_success", base=WithoutBackend)
def backend_down_success(value: str) -> str:
    return value


@shared_task(name=f"{PREFIX}backend_down_late", base=LateWithoutBackend)
def backend_down_late(value: str) -> str:
    return str(exception.run(value))


@shared_task(name=f"{PREFIX}before_start", base=FailingStart)
def before_start(value: str) -> str:
    return value


@shared_task(name=f"{PREFIX}on_failure", base=FailingHooks)
def on_failure(value: str) -> str:
    return str(exception.run(value))


@shared_task(name=f"{PREFIX}on_retry", base=FailingRetry, max_retries=1, retry_jitter=False)
def on_retry(value: str) -> str:
    return str(exception.run(value))


@shared_task(name=f"{PREFIX}waiting", base=EarlyTask)
def waiting(value: str) -> str:
    wait_for_cure()
    return value
