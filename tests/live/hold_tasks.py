"""What the canvases of test_hold.py are made of; the test knows these tasks as well, as a web process would."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from celery import Task, shared_task


def note(line: str) -> None:
    with open(os.environ["TASKKIT_TEST_CALLS"], "a") as calls:
        calls.write(f"{line}\n")


def is_cured(what: object = "all") -> bool:
    cures = Path(os.environ["TASKKIT_TEST_CURE"])
    return Path(cures, "all").exists() or Path(cures, str(what)).exists()


@shared_task(name="hold.number")
def number(value: int) -> int:
    return value


@shared_task(name="hold.plus")
def plus(value: int, more: int) -> int:
    return value + more


@shared_task(name="hold.fails", hold=True)
def fails(value: int, more: int = 0) -> int:
    if not is_cured(value):
        raise ValueError(f"no {value}")
    return value + more


@shared_task(name="hold.unheld_fails")
def unheld_fails(value: int, more: int = 0) -> int:
    if not is_cured():
        raise ValueError(f"no {value}")
    return value + more


@shared_task(name="hold.is_killed", hold=True)
def is_killed(value: int) -> int:
    if not is_cured():
        os.kill(os.getpid(), signal.SIGKILL)
    return value


@shared_task(name="hold.is_endless", hold=True, time_limit=1)
def is_endless(value: int) -> int:
    while not is_cured():
        time.sleep(0.1)
    return value


@shared_task(name="hold.unheld_is_killed")
def unheld_is_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="hold.unheld_is_endless", time_limit=1)
def unheld_is_endless() -> None:
    while True:
        time.sleep(0.1)


class WithBrokenHook(Task):
    def on_failure(self, *args: object) -> None:
        raise RuntimeError("the hook is broken")


@shared_task(name="hold.hook_raises", base=WithBrokenHook)
def hook_raises() -> None:
    raise ValueError("no")


@shared_task(name="hold.total")
def total(values: list[int], name: str = "total") -> int:
    note(f"{name} {sum(values)}")
    return sum(values)


@shared_task(name="hold.called_with_request")
def called_with_request(request: object, exc: BaseException, traceback: object) -> None:
    """An error callback that Celery calls where the failure is noticed."""
    note(f"called for {request.id}: {type(exc).__name__}")


@shared_task(name="hold.sent_the_id")
def sent_the_id(task_id: str) -> None:
    """An error callback that Celery sends as a task."""
    note(f"sent for {task_id}")


@shared_task(name="hold.tells", bind=True)
def tells(self, _value: int, fail_first: bool = False) -> int:
    """Note what the message that arrived here says."""
    request = self.request
    if fail_first and not is_cured():
        raise ValueError("not yet")
    names = ("id", "root_id", "parent_id", "group", "shadow", "timelimit", "stamped_headers", "stamps")
    told = {name: getattr(request, name) for name in names}
    told.update(
        tenant=getattr(request, "tenant", None),
        traceparent=getattr(request, "traceparent", None),
        priority=request.delivery_info.get("priority"),
        callbacks=[callback["task"] for callback in request.callbacks or ()],
        errbacks=[errback["task"] for errback in request.errbacks or ()],
    )
    note(json.dumps(told, default=str))
    return 1
