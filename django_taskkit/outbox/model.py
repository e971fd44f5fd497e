"""The tables of the outbox: what waits, who is sending it, and which relays are alive."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_taskkit.dlq.models import StoredMessage


class OutboxReason(models.TextChoices):
    """Why a message was not handed to the broker at once."""

    PUBLISH_FAILED = "publish_failed", _("publishing failed")
    TRANSACTIONAL = "transactional", _("transactional")
    LONG_DELAY = "long_delay", _("long delay")
    PUT_OFF = "put_off", _("put off")


class OutboxMessage(StoredMessage):
    """A message that waits to be published; deleted once the broker has confirmed it."""

    task_id = models.CharField(_("task id"), max_length=255, db_index=True)
    """Not unique: a retry has the id of the task that it retries."""
    reason = models.CharField(_("reason"), max_length=32, choices=OutboxReason.choices)
    queue = models.CharField(_("queue"), max_length=255, blank=True, db_index=True)
    created_at = models.DateTimeField(_("created at"))
    due_at = models.DateTimeField(
        _("due at"), null=True, blank=True, db_index=True, help_text=_("Not published before; empty: at once.")
    )
    attempts = models.PositiveIntegerField(
        _("attempts"), default=0, help_text=_("How often the broker refused the message.")
    )
    last_error = models.TextField(
        _("last error"), blank=True, help_text=_("What the broker said last; or why the message was put off.")
    )

    class Meta:
        verbose_name = _("outbox message")
        verbose_name_plural = _("outbox")
        ordering = ("pk",)
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.task_name}[{self.task_id}]"


class OutboxLease(models.Model):
    """The right of one relay to send what waits for one queue; the row is there only while somebody has it."""

    queue = models.CharField(_("queue"), max_length=255, unique=True)
    held_by = models.CharField(_("held by"), max_length=255)
    held_until = models.DateTimeField(_("held until"))

    class Meta:
        verbose_name = _("outbox lease")
        verbose_name_plural = _("outbox leases")
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.queue}: {self.held_by}"


class RelayHeartbeat(models.Model):
    """A sign of life of a relay."""

    name = models.CharField(_("name"), max_length=255, unique=True)
    started_at = models.DateTimeField(_("started at"))
    seen_at = models.DateTimeField(_("seen at"), db_index=True)

    class Meta:
        verbose_name = _("relay")
        verbose_name_plural = _("relays")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return self.name
