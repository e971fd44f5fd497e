"""``taskkit_report``: a remote control command by which a worker says in one answer what it is and what time it has.

Celery's own commands need three questions for less: none tells versions or the clock.
"""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from typing import Any

import celery
import django
from celery.worker.control import inspect_command

from django_taskkit import __version__, conf
from django_taskkit.exceptions import ConfigurationError

COMMAND = "taskkit_report"

_POOLS = {"thread": "threads"}
"""Pools whose module is not called as the option ``--pool``."""


@inspect_command(name=COMMAND)
def report(state: Any, tasks: bool = False, **kwargs: Any) -> dict[str, Any]:
    """Say what this worker is; with ``tasks``, also which tasks it knows. Later releases may ask for more."""
    consumer = state.consumer
    pool = consumer.pool
    answer = {
        "time": time.time(),
        "pid": os.getpid(),
        "queues": sorted(queue.name for queue in consumer.task_consumer.queues) if consumer.task_consumer else [],
        "pool": pool_name(pool),
        "concurrency": getattr(pool, "limit", None) or getattr(consumer.controller, "concurrency", None),
        "celery": celery.__version__,
        "kombu": version("kombu"),
        "python": platform.python_version(),
        "django": django.__version__,
        "taskkit": __version__,
        "release": _release(),
    }
    if tasks:
        answer["tasks"] = sorted(name for name in state.app.tasks if not name.startswith("celery."))
    return answer


def pool_name(pool: Any) -> str:
    """Return what ``--pool`` calls the kind of ``pool``."""
    module = type(pool).__module__.rpartition(".")[2]
    return _POOLS.get(module, module)


def _release() -> str:
    try:
        return conf.current().release
    except ConfigurationError:  # a worker with such settings would not have started
        return ""
