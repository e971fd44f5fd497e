"""The facts of one death, ready to be written."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.utils import timezone

from django_taskkit import conf
from django_taskkit.base_tasks.verdicts import told_by
from django_taskkit.dlq.grouping import fingerprint
from django_taskkit.dlq.models import Reason, decode_mapping, encode_mapping
from django_taskkit.dlq.text import (
    bounded,
    class_of,
    message_of,
    storable,
    traceback_of,
)
from django_taskkit.envelope import Envelope

FORMAT = 1
"""Which fields the text of a death has; another number is another release's."""

_DEATH_TEXTS = ("task_name", "exception_class", "exception_message", "traceback", "fingerprint", "worker", "release")
_ENVELOPE_TEXTS = ("content_type", "content_encoding", "exchange", "routing_key", "queue")


def _current_release() -> str:
    return storable(conf.current().release)


def message_columns(envelope: Envelope) -> dict[str, Any]:
    """Return the values of a :class:`StoredMessage` row but for its names, all of a kind that every database takes."""
    return {
        "queue": bounded(envelope.queue),
        "body": envelope.body,
        "content_type": bounded(envelope.content_type),
        "content_encoding": bounded(envelope.content_encoding),
        "headers": envelope.headers,
        "properties": envelope.properties,
        "exchange": bounded(envelope.exchange),
        "routing_key": bounded(envelope.routing_key),
    }


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
    body_ran: bool = False
    """Whether the task itself had ended well, and only what follows went wrong."""
    held: bool = False
    """Whether its chord or group waits for it."""
    release: str = field(default_factory=_current_release)
    """Of the project, when the message died; it may reach the table under a later one."""

    @classmethod
    def by_exception(
        cls, envelope: Envelope, exc: BaseException, *, reason: Reason, task_name: str = "", worker: str = ""
    ) -> Death:
        """Describe the death of ``envelope`` by ``exc``; nothing that is odd about ``exc`` makes this raise."""
        settings = conf.current()
        told = told_by(exc)
        exception_class = class_of(told)
        return cls(
            envelope=envelope,
            # A message of Celery's first protocol has its name in the body.
            task_name=envelope.task_name or task_name,
            reason=reason,
            died_at=timezone.now(),
            exception_class=exception_class,
            exception_message=message_of(told, settings.message_max_length),
            traceback=traceback_of(exc, settings.traceback_max_length),
            fingerprint=fingerprint(envelope.task_name or task_name, exception_class, told.__traceback__),
            worker=worker,
        )

    def columns(self) -> dict[str, Any]:
        """Return the values of a :class:`DeadLetter` row, all of a kind that every database takes."""
        envelope, headers = self.envelope, self.envelope.headers
        return {
            "task_name": bounded(self.task_name),
            "reason": self.reason.value,
            "exception_class": self.exception_class,
            "exception_message": self.exception_message,
            "traceback": self.traceback,
            "fingerprint": self.fingerprint,
            "attempts": envelope.retries + 1,
            "body_ran": self.body_ran,
            "died_at": self.died_at,
            "root_id": bounded(headers.get("root_id")),
            "parent_id": bounded(headers.get("parent_id")),
            "group_id": bounded(headers.get("group")),
            "worker": bounded(self.worker),
            "release": bounded(self.release),
            **message_columns(envelope.at_home()),
        }

    def as_text(self) -> str:
        """Return everything as JSON in ASCII, for :meth:`from_text`; nothing in it is pickled."""
        envelope = self.envelope
        message = {name: getattr(envelope, name) for name in _ENVELOPE_TEXTS}
        return json.dumps(
            {
                "format": FORMAT,
                "reason": self.reason.value,
                "died_at": self.died_at.isoformat(),
                "body_ran": self.body_ran,
                "held": self.held,
                **{name: getattr(self, name) for name in _DEATH_TEXTS},
                "message": {
                    **message,
                    "body": b64encode(envelope.body).decode("ascii"),
                    # As text in the text: the same bytes reach the table as would have directly.
                    "headers": encode_mapping(envelope.headers),
                    "properties": encode_mapping(envelope.properties),
                },
            }
        )

    @classmethod
    def from_text(cls, text: str | bytes) -> Death:
        """Return the death that :meth:`as_text` wrote.

        Raises:
            ValueError: ``text`` is something else.
        """
        try:
            facts = json.loads(text)
            if facts["format"] != FORMAT:
                raise ValueError(f"its format is {facts['format']!r}, and this release reads {FORMAT}")
            message = facts["message"]
            envelope = Envelope(
                body=b64decode(message["body"], validate=True),
                headers=decode_mapping(message["headers"]),
                properties=decode_mapping(message["properties"]),
                **{name: message[name] for name in _ENVELOPE_TEXTS},
            )
            return cls(
                envelope=envelope,
                reason=Reason(facts["reason"]),
                died_at=datetime.fromisoformat(facts["died_at"]),
                body_ran=bool(facts["body_ran"]),
                held=bool(facts.get("held")),  # older releases hold nothing
                **{name: facts[name] for name in _DEATH_TEXTS},
            )
        except (LookupError, TypeError, AttributeError, RecursionError) as exc:
            raise ValueError(f"it is no dead letter: {type(exc).__name__}: {exc}") from exc
