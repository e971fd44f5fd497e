"""A plain Celery app (no Django, none of our package) that writes down which hooks and signals Celery calls.

One JSON line per call goes to the file named by ``TASKKIT_TEST_EVENTS``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

import harness
import kombu
from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject

app = Celery("contract_app", fixups=[])
app.conf.update(harness.celery_settings())

MAIN = os.getpid()  # imported by the parent before it forks the pool


def record(event: str, task_id: str | None, request_id: str | None = None) -> None:
    line = {
        "event": event,
        "task_id": task_id,
        "process": "main" if os.getpid() == MAIN else "child",
        "request": task_id is not None and request_id == task_id,
    }
    with open(os.environ["TASKKIT_TEST_EVENTS"], "a") as events:
        events.write(json.dumps(line) + "\n")


@signals.task_failure.connect(weak=False)
def on_task_failure(sender, task_id, **_):
    record("task_failure", task_id, sender.request.id)


@signals.task_retry.connect(weak=False)
def on_task_retry(sender, request, **_):
    record("task_retry", request.id)


@signals.task_internal_error.connect(weak=False)
def on_task_internal_error(sender, task_id, **_):
    record("task_internal_error", task_id)


@signals.task_revoked.connect(weak=False)
def on_task_revoked(sender, request, **_):
    record("task_revoked", request.id)


@signals.task_unknown.connect(weak=False)
def on_task_unknown(sender, id, **_):
    record("task_unknown", id)


@signals.task_rejected.connect(weak=False)
def on_task_rejected(sender, message, **_):
    record("task_rejected", message.headers.get("id"))


class Recorded(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        record("on_failure", task_id, self.request.id)


class HookRaises(Task):
    def on_failure(self, exc, task_id, args, kwargs, einfo):
        record("on_failure", task_id, self.request.id)
        raise RuntimeError("on_failure raised")


@app.task(name="contract.nothing")
def nothing():
    """What the test sends to learn that the worker has moved on."""


@app.task(base=Recorded, name="contract.exception")
def exception():
    raise ValueError("no")


@app.task(base=HookRaises, name="contract.hook_raises")
def hook_raises():
    raise ValueError("no")


@app.task(
    base=Recorded,
    name="contract.retries_exhausted",
    autoretry_for=(ValueError,),
    max_retries=1,
    default_retry_delay=0,
)
def retries_exhausted():
    raise ValueError("no")


@app.task(base=Recorded, name="contract.soft_time_limit", soft_time_limit=1)
def soft_time_limit():
    time.sleep(60)


@app.task(base=Recorded, name="contract.hard_time_limit", time_limit=1)
def hard_time_limit():
    time.sleep(60)


@app.task(base=Recorded, name="contract.child_killed")
def child_killed():
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(base=Recorded, name="contract.system_exit")
def system_exit():
    sys.exit(3)


@app.task(base=Recorded, name="contract.memory_error")
def memory_error():
    raise MemoryError


@app.task(base=Recorded, name="contract.reject")
def reject():
    raise Reject("no", requeue=False)


@app.task(base=Recorded, name="contract.ignore")
def ignore():
    raise Ignore


@app.task(base=Recorded, name="contract.unserialisable_result")
def unserialisable_result():
    return object()


@app.task(base=Recorded, name="contract.retry_unpublished", bind=True)
def retry_unpublished(self):
    """The retry goes to a broker that is not there."""
    nowhere = kombu.Connection(f"redis://127.0.0.1:{harness.free_port()}/0")
    raise self.retry(connection=nowhere, retry=False, countdown=0, exc=ValueError("no"))


@app.task(base=Recorded, name="contract.retry_once", bind=True, max_retries=1)
def retry_once(self, countdown):
    record("run", self.request.id, self.request.id)
    if self.request.retries == 0:
        raise self.retry(countdown=countdown, exc=ValueError("no"))
