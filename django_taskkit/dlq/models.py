"""The tables: one row per task that died, and what happened to it since."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from django.db import models
from django.utils.translation import gettext_lazy as _
from kombu.utils import json as kombu_json

from django_taskkit.envelope import Envelope

if TYPE_CHECKING:
    TextField = models.TextField[Any, Any]
    CharField = models.CharField[Any, Any]
else:
    TextField, CharField = models.TextField, models.CharField


class MessageField(TextField):
    """A mapping from a message, as JSON text in ASCII.

    Text, because PostgreSQL's ``jsonb`` and MariaDB's character sets refuse values that a message may well have
    (NUL, lone surrogates); kombu's JSON, because it brings dates, UUIDs and decimals back as they were.
    """

    def from_db_value(self, value: str | None, expression: Any, connection: Any) -> Any:
        return decode_mapping(value) if value else {}

    def to_python(self, value: Any) -> Any:
        return decode_mapping(value) if isinstance(value, str) and value else value

    def get_prep_value(self, value: Any) -> Any:
        return value if isinstance(value, str) else encode_mapping(value or {})


def decode_mapping(text: str) -> dict[str, Any]:
    """Return what :func:`encode_mapping` wrote; what only looks like one of kombu's marks is left as it is.

    Never raises: a list of dead letters must not end at the first odd one. Text that is no mapping comes back under the
    key ``"unreadable"``.
    """
    try:
        return dict(_decode(text))
    except (ValueError, TypeError, RecursionError):
        return {"unreadable": text}


def _unmarked(found: dict[str, Any]) -> Any:
    try:
        return kombu_json.object_hook(found)
    except Exception:  # the sender of a message may put anything there
        return found


_decode = json.JSONDecoder(object_hook=_unmarked).decode  # made once: a list has thousands of them


def encode_mapping(value: Any) -> str:
    """Return ``value`` as JSON text; what JSON can't hold is kept as its ``repr``."""
    try:
        return kombu_json.dumps(value)
    except Exception:  # a header may be anything; the row must still be written
        return json.dumps({str(key): _plain(item) for key, item in dict(value).items()})


def _plain(value: Any) -> Any:
    try:
        return json.loads(kombu_json.dumps(value))
    except Exception:
        try:
            return repr(value)[:1000]
        except Exception:
            return f"<{type(value).__name__} without a repr>"


class TaskIdField(CharField):
    """A text that is compared byte by byte: MariaDB and MySQL would take "ab" and "AB " for the same id."""

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
        return parameters


class Status(models.TextChoices):
    DEAD = "dead", _("dead")
    HELD = "held", _("held")
    REQUEUED = "requeued", _("requeued")
    RECOVERED = "recovered", _("recovered")
    DISCARDED = "discarded", _("discarded")


class Reason(models.TextChoices):
    EXCEPTION = "exception", _("exception")
    RETRIES_EXHAUSTED = "retries_exhausted", _("retries exhausted")
    PERMANENT = "permanent", _("permanent")
    DEADLINE = "deadline", _("deadline passed")
    TIME_LIMIT = "time_limit", _("time limit")
    WORKER_LOST = "worker_lost", _("worker lost")
    DELIVERY_LIMIT = "delivery_limit", _("delivery limit")
    REJECTED = "rejected", _("rejected")
    EXPIRED = "expired", _("expired")
    REVOKED = "revoked", _("revoked")
    UNREGISTERED = "unregistered", _("unregistered task")
    UNDECODABLE = "undecodable", _("undecodable")
    REFUSED_CONTENT = "refused_content", _("refused content")
    INVALID = "invalid", _("invalid message")
    RESULT_LOST = "result_lost", _("result lost")
    PUBLISH_FAILED = "publish_failed", _("publishing failed")
    BROKER = "broker", _("dead-lettered by the broker")


class StoredMessage(models.Model):
    """A row that holds a whole message; :func:`django_taskkit.dlq.death.message_columns` makes the values."""

    task_name = models.CharField(_("task"), max_length=255)
    queue = models.CharField(_("queue"), max_length=255, blank=True)
    body = models.BinaryField(_("body"))
    content_type = models.CharField(max_length=255, blank=True)
    content_encoding = models.CharField(max_length=255, blank=True)
    headers = MessageField(_("headers"), blank=True)
    properties = MessageField(_("properties"), blank=True)
    exchange = models.CharField(_("exchange"), max_length=255, blank=True)
    routing_key = models.CharField(_("routing key"), max_length=255, blank=True)

    class Meta:
        abstract = True

    @property
    def envelope(self) -> Envelope:
        """The message, ready to be sent again."""
        return Envelope(
            body=bytes(self.body),
            content_type=self.content_type,
            content_encoding=self.content_encoding,
            headers=self.headers,
            properties=self.properties,
            exchange=self.exchange,
            routing_key=self.routing_key,
            queue=self.queue,
        )


class DeadLetter(StoredMessage):
    """A message that will not run again unless someone acts."""

    task_id = TaskIdField(_("task id"), max_length=255, unique=True)
    task_name = models.CharField(_("task"), max_length=255, db_index=True)
    status = models.CharField(_("status"), max_length=16, choices=Status.choices, default=Status.DEAD)
    reason = models.CharField(_("reason"), max_length=32, choices=Reason.choices, db_index=True)
    exception_class = models.CharField(_("exception"), max_length=255, blank=True)
    exception_message = models.TextField(_("message"), blank=True)
    traceback = models.TextField(_("traceback"), blank=True)
    fingerprint = models.CharField(
        _("fingerprint"),
        max_length=40,
        blank=True,
        db_index=True,
        help_text=_("The same for failures of one cause."),
    )
    attempts = models.PositiveIntegerField(
        _("attempts"),
        default=1,
        help_text=_("Runs since the message was last sent, the one that died included."),
    )
    body_ran = models.BooleanField(
        _("body ran"),
        default=False,
        db_default=False,
        help_text=_("The task itself had ended well; requeueing it does its work once more."),
    )
    requeue_count = models.PositiveIntegerField(_("requeued"), default=0, help_text=_("How often it was put back."))
    died_at = models.DateTimeField(_("died at"), db_index=True)
    root_id = models.CharField(_("root id"), max_length=255, blank=True)
    parent_id = models.CharField(_("parent id"), max_length=255, blank=True)
    group_id = models.CharField(_("group id"), max_length=255, blank=True)
    worker = models.CharField(_("worker"), max_length=255, blank=True)
    release = models.CharField(_("release"), max_length=255, blank=True)

    class Meta:
        verbose_name = _("dead letter")
        verbose_name_plural = _("dead letters")
        ordering = ("-died_at", "-pk")
        indexes = (models.Index(fields=["status", "-died_at"], name="taskkit_dl_status_died"),)
        default_permissions = ("view",)
        permissions = (
            ("requeue_deadletter", "Can requeue dead letters"),
            ("discard_deadletter", "Can discard dead letters"),
            ("edit_deadletter", "Can edit the message of dead letters"),
            ("view_sensitive_deadletter", "Can see redacted arguments of dead letters"),
        )

    def __str__(self) -> str:
        return f"{self.task_name}[{self.task_id}]"


class DeadLetterEvent(models.Model):
    """One entry in the history of a dead letter."""

    class Kind(models.TextChoices):
        DIED = "died", _("died")
        HELD = "held", _("held")
        REQUEUED = "requeued", _("requeued")
        RECOVERED = "recovered", _("recovered")
        DISCARDED = "discarded", _("discarded")
        EDITED = "edited", _("edited")
        IMPORTED = "imported", _("imported")

    dead_letter = models.ForeignKey(DeadLetter, models.CASCADE, related_name="events", verbose_name=_("dead letter"))
    kind = models.CharField(_("event"), max_length=16, choices=Kind.choices)
    at = models.DateTimeField(_("at"))
    by = models.CharField(_("by"), max_length=255, blank=True, help_text=_("Who did it; empty if no person did."))
    generation = models.PositiveIntegerField(
        _("generation"), default=0, help_text=_("How often the message had been requeued by then.")
    )
    note = models.TextField(_("note"), blank=True)

    class Meta:
        verbose_name = _("event")
        verbose_name_plural = _("history")
        ordering = ("at", "pk")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.at:%Y-%m-%d %H:%M:%S}"


class Redelivery(models.Model):
    """How often a message was started that the broker had delivered before; messages delivered once have no row."""

    key = TaskIdField(max_length=255, unique=True)
    """Task id, generation and retry: each retry and each requeue is a new message."""
    starts = models.PositiveIntegerField()
    """Starts, the first delivery's included."""
    at = models.DateTimeField(db_index=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.key}: {self.starts}"
