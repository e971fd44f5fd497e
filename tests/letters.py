"""Rows of dead letters, made without a worker."""

import itertools
import json
from datetime import timedelta

from django.utils import timezone

from django_taskkit.models import DeadLetter, DeadLetterEvent, DjangoTaskResult

_numbers = itertools.count(1)


def dead_letter(task_id=None, *, ago=None, died_at=None, args=(), kwargs=None, closed_ago=None, **values):
    """Make a row; ``ago`` and ``closed_ago`` are timedeltas since its death and since its last event."""
    number = next(_numbers)
    task_id = f"letter-{number}" if task_id is None else task_id
    died_at = died_at or timezone.now() - (timedelta(minutes=1) if ago is None else ago)
    name = values.setdefault("task_name", "orders.send")
    values.setdefault("queue", "orders")
    row = DeadLetter.objects.create(
        **{
            "task_id": task_id,
            "reason": "exception",
            "exception_class": "ValueError",
            "exception_message": "no",
            "fingerprint": f"{number:040x}",
            "died_at": died_at,
            "body": json.dumps([list(args), kwargs or {}, {}]).encode(),
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": {"id": task_id, "task": name, "root_id": task_id, "retries": 2, "lang": "py"},
            "properties": {"correlation_id": task_id, "delivery_mode": 2},
            "routing_key": values["queue"],
            **values,
        }
    )
    events = [DeadLetterEvent(dead_letter=row, kind="died", at=died_at, note="ValueError: no")]
    if closed_ago is not None:
        at = timezone.now() - closed_ago
        events.append(DeadLetterEvent(dead_letter=row, kind=row.status, at=at, by="ann"))
    DeadLetterEvent.objects.bulk_create(events)
    return row


def finished_result(task_id, *, ago, **values):
    """Make a row of a task of Django's that ended a timedelta ago."""
    at = timezone.now() - ago
    return DjangoTaskResult.objects.create(
        **{
            "task_id": task_id,
            "task_path": "orders.send",
            "backend": "default",
            "queue_name": "default",
            "priority": 0,
            "args": [],
            "kwargs": {},
            "status": "SUCCESSFUL",
            "enqueued_at": at,
            "finished_at": at,
            **values,
        }
    )
