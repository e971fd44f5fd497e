"""What the messages run. Each notes in the ledger that it starts and, if it did its work, that it is done."""

from __future__ import annotations

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.exceptions import Reject

from account.ledger import note
from account.projects import here

Body = Callable[..., Any]

_declared: list[tuple[str, Body, dict[str, Any]]] = []


def declare(app: Celery) -> None:
    """Register the tasks with ``app``."""
    for name, body, options in _declared:
        app.task(name=f"account.{name}", bind=True, **options)(body)


def task(*, retrying: bool = False, counts: bool = True, **options: Any) -> Callable[[Body], Body]:
    def decorate(body: Body) -> Body:
        @functools.wraps(body)
        def noted(self: Any, *args: Any, item: str, **kwargs: Any) -> Any:
            note("started", item, retries=self.request.retries)
            result = body(self, *args, item, **kwargs)
            if counts:
                note("done", item)
            return result

        _declared.append((body.__name__, noted, {**options, **(_retrying() if retrying else {})}))
        return body

    return decorate


def _retrying() -> dict[str, Any]:
    """Two retries after one and two seconds, said in each project's own way."""
    options: dict[str, Any] = {"autoretry_for": (ConnectionError,), "max_retries": 2, "retry_jitter": False}
    if here().ours:
        from django_taskkit.base_tasks import BaseTaskWithRetry

        return {**options, "base": BaseTaskWithRetry, "retry_backoff": 1}
    return {**options, "retry_backoff": 1}


@task()
def succeeds(self, item, seconds=0.01):
    time.sleep(seconds)
    return item


@task()
def raises(self, item):
    raise LookupError(f"{item} is not there")


@task(retrying=True)
def recovers(self, item):
    if self.request.retries == 0:
        raise ConnectionError("not at once")


@task(retrying=True)
def exhausts(self, item):
    raise ConnectionError("never")


@task(counts=False)
def returns_nonsense(self, item):
    return object()


def _broken_hook(self: Any, *args: Any) -> None:
    raise RuntimeError("the hook fails as well")


@task(on_failure=_broken_hook)
def raises_twice(self, item):
    raise LookupError(f"{item} is not there")


@task(soft_time_limit=1)
def takes_too_long(self, item):
    time.sleep(60)


@task(time_limit=1)
def takes_far_too_long(self, item):
    time.sleep(60)


@task()
def kills_its_process(self, item):
    os.kill(os.getpid(), signal.SIGKILL)


@task()
def leaves_its_process(self, item):
    os._exit(0)


@task()
def exits(self, item):
    sys.exit(3)


@task()
def interrupts(self, item):
    raise KeyboardInterrupt


class Unusual(BaseException):
    """No Exception, as frameworks have them."""


@task()
def raises_no_exception(self, item):
    raise Unusual(item)


@task()
def rejects(self, item):
    raise Reject("no", requeue=False)


@task()
def gives_back_for_ever(self, item):
    time.sleep(0.2)
    raise Reject("not now", requeue=True)


@task()
def runs_out_of_memory(self, item):
    raise MemoryError


@task()
def kills_its_worker(self, item):
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
