"""The worker of test_intake.py: a Django project whose queues have a dead-letter exchange."""

from __future__ import annotations

import json
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task
from celery.exceptions import Reject
from kombu import Exchange, Queue

QUEUES_VARIABLE = "TASKKIT_TEST_QUEUES"


def queues(described: dict[str, dict[str, object]], exchange: str, kind: str) -> list[Queue]:
    """One queue for each name, with its arguments, all bound to `exchange`."""
    return [
        Queue(name, Exchange(exchange, type=kind), routing_key=name, queue_arguments=arguments)
        for name, arguments in described.items()
    ]


app = Celery("intake", task_cls="celery.contrib.django.task:DjangoTask")
app.conf.update(harness.celery_settings())
if QUEUES_VARIABLE in os.environ:
    app.conf.task_queues = queues(**json.loads(os.environ[QUEUES_VARIABLE]))


@shared_task(name="intake.add")
def add(x: int, y: int) -> int:
    return x + y


@shared_task(bind=True, name="intake.reject_once", acks_late=True)
def reject_once(self) -> str:
    """Rejects its message, unless it was requeued by us."""
    if not getattr(self.request, "taskkit_generation", None):
        raise Reject("no", requeue=False)
    return "done"
