"""The facts of one death, ready to be written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq.grouping import fingerprint
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.text import (
    bounded,
    class_of,
    message_of,
    storable,
    traceback_of,
)
from django_taskkit.envelope import Envelope


@dataclass(frozen=True, kw_only=True)
class Death:
    """A message that will not run again by itself, and why."""

    envelope: Envelope
    task_name: str
    reason: Reason
    died_at: datetime
    exception_class: str = ""
    exception_message: str = ""
    traceback: str = ""
    fingerprint: str = ""
    worker: str = ""

    @classmethod
    def by_exception(
        cls, envelope: Envelope, exc: BaseException, *, reason: Reason, task_name: str = "", worker: str = ""
    ) -> Death:
        """Describe the death of ``envelope`` by ``exc``; nothing that is odd about ``exc`` makes this raise."""
        settings = conf.current()
        exception_class = class_of(exc)
        return cls(
            envelope=envelope,
            # A message of Celery's first protocol has its name in the body.
            task_name=envelope.task_name or task_name,
            reason=reason,
            died_at=timezone.now(),
            exception_class=exception_class,
            exception_message=message_of(exc, settings.message_max_length),
            traceback=traceback_of(exc, settings.traceback_max_length),
            fingerprint=fingerprint(envelope.task_name or task_name, exception_class, exc.__traceback__),
            worker=worker,
        )

    def columns(self) -> dict[str, Any]:
        """Return the values of a :class:`DeadLetter` row, all of a kind that every database takes."""
        envelope, headers = self.envelope, self.envelope.headers
        return {
            "task_name": bounded(self.task_name),
            "reason": self.reason.value,
            "queue": bounded(envelope.queue),
            "exception_class": self.exception_class,
            "exception_message": self.exception_message,
            "traceback": self.traceback,
            "fingerprint": self.fingerprint,
            "attempts": envelope.retries + 1,
            "died_at": self.died_at,
            "root_id": bounded(headers.get("root_id")),
            "parent_id": bounded(headers.get("parent_id")),
            "group_id": bounded(headers.get("group")),
            "worker": bounded(self.worker),
            "release": storable(conf.current().release),
            "body": envelope.body,
            "content_type": bounded(envelope.content_type),
            "content_encoding": bounded(envelope.content_encoding),
            "headers": envelope.headers,
            "properties": envelope.properties,
            "exchange": bounded(envelope.exchange),
            "routing_key": bounded(envelope.routing_key),
        }
