"""The tables of redrives."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _

from django_taskkit.dlq.models import DeadLetter


class Redrive(models.Model):
    """A bulk requeue of the dead letters that were there when it was made."""

    class State(models.TextChoices):
        PREPARING = "preparing", _("preparing")
        RUNNING = "running", _("running")
        PAUSED = "paused", _("paused")
        STOPPED = "stopped", _("stopped")
        """By itself: the failure of its canary came back."""
        CANCELLED = "cancelled", _("cancelled")
        FINISHED = "finished", _("finished")

    state = models.CharField(_("state"), max_length=16, choices=State.choices, default=State.PREPARING, db_index=True)
    selection = models.TextField(_("selection"), blank=True, help_text=_("What was chosen, in words."))
    created_at = models.DateTimeField(_("created at"))
    created_by = models.CharField(_("by"), max_length=255, blank=True)
    started_at = models.DateTimeField(_("started at"), null=True, blank=True)
    ended_at = models.DateTimeField(_("ended at"), null=True, blank=True)
    why = models.TextField(_("why"), blank=True, help_text=_("Why it stopped, or who paused or cancelled it."))

    rate = models.FloatField(_("messages per second"), null=True, blank=True, help_text=_("Empty: as fast as it goes."))
    canary = models.BooleanField(
        _("canary"), default=False, help_text=_("Sends 1, then 5, 25, and so on, and waits for each to succeed.")
    )
    step = models.PositiveSmallIntegerField(default=0)
    """Which of the canary's steps it is at, from 0; after the last one the canary is over."""
    forgiven = models.PositiveIntegerField(default=0)
    """How many of ``same_again`` whoever resumed it knew of."""
    queue = models.CharField(_("queue"), max_length=255, blank=True, help_text=_("Empty: each to where it came from."))
    not_before = models.DateTimeField(_("not before"), null=True, blank=True)
    despite_preflight = models.BooleanField(_("also what the preflight refuses"), default=False)
    even_if_ran = models.BooleanField(_("also those whose task had ended well"), default=False)
    reset_results = models.BooleanField(_("reset result states"), default=False)

    total = models.PositiveIntegerField(_("total"), default=0)
    left_out = models.PositiveIntegerField(
        _("left out"), default=0, help_text=_("Dead letters that another redrive has already.")
    )
    sent = models.PositiveIntegerField(_("sent"), default=0)
    refused = models.PositiveIntegerField(_("refused"), default=0)
    recovered = models.PositiveIntegerField(_("recovered"), default=0)
    failed_again = models.PositiveIntegerField(_("failed again"), default=0)
    same_again = models.PositiveIntegerField(
        default=0, help_text=_("Of those that failed again: how many of them with the same failure.")
    )
    """Each count is changed in the transaction that changes the members, so a page reads one row."""

    held_by = models.CharField(max_length=255, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    """Until when the runner in ``held_by`` has it for itself."""
    run_from = models.DateTimeField(null=True, blank=True)
    sent_before = models.PositiveIntegerField(default=0)
    """When that runner began, and how many were sent by then: what the rate is measured from."""

    class Meta:
        verbose_name = _("redrive")
        verbose_name_plural = _("redrives")
        ordering = ("-created_at", "-pk")
        default_permissions = ("view",)

    def __str__(self) -> str:
        return f"{self.pk}: {self.selection}"[:200]


class RedriveMember(models.Model):
    """A dead letter that a redrive puts back."""

    class State(models.TextChoices):
        WAITING = "waiting", _("waiting")
        SENT = "sent", _("sent")
        REFUSED = "refused", _("refused")
        RECOVERED = "recovered", _("recovered")
        FAILED = "failed", _("failed again")

    # Its index would be the beginning of the two below.
    redrive = models.ForeignKey(Redrive, models.CASCADE, related_name="members", db_index=False)
    dead_letter = models.ForeignKey(DeadLetter, models.CASCADE, related_name="+")
    state = models.CharField(max_length=9, choices=State.choices, default=State.WAITING, db_default=State.WAITING)
    generation = models.PositiveIntegerField(default=0, db_default=0)
    """The number of its requeue by this redrive; until it is sent, of the last one before."""
    fingerprint = models.CharField(max_length=40, blank=True, db_default="")
    """Of the failure that the redrive was made for."""
    note = models.CharField(max_length=255, blank=True, db_default="")
    """Why it was refused."""

    class Meta:
        default_permissions = ()
        constraints = (models.UniqueConstraint(fields=["redrive", "dead_letter"], name="taskkit_rm_once"),)
        indexes = (models.Index(fields=["redrive", "state", "id"], name="taskkit_rm_state"),)

    def __str__(self) -> str:
        return f"{self.redrive_id}: {self.dead_letter_id}"
