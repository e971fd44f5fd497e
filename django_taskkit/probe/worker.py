"""What ``celery -A`` gets for a probe: the project's own app, which knows the probe's tasks and queue as well."""

from __future__ import annotations

import os
from typing import Any

from celery import signals
from celery.app.utils import find_app

APP_VARIABLE = "TASKKIT_PROBE_APP"
QUEUE_VARIABLE = "TASKKIT_PROBE_QUEUE"

app = find_app(os.environ[APP_VARIABLE])


@signals.import_modules.connect(weak=False)
def _prepare(**kwargs: Any) -> None:
    from django_taskkit.probe import tasks  # noqa: F401

    # Also where task_create_missing_queues is off.
    name, queues = os.environ[QUEUE_VARIABLE], app.amqp.queues
    if name not in queues:
        queues.add(queues.new_missing(name))
