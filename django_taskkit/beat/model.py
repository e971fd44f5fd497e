"""The tables of beat: who is the one that sends, and what was sent last.

Times are seconds since 1970, so that neither ``USE_TZ`` nor a project's time zone changes what they mean.
"""

from __future__ import annotations

from django.db import models


class BeatLease(models.Model):
    """The right of one beat to send what is due; the row stays, as a sign of when a beat was seen last."""

    name = models.CharField(max_length=255, unique=True)
    """Of the Celery app: each has a beat of its own."""
    holder = models.CharField(max_length=255)
    """One beat process, and no other."""
    host = models.CharField(max_length=255)
    pid = models.PositiveBigIntegerField()
    process = models.CharField(max_length=255, blank=True)
    """By what others on its machine see that it is gone; see process_identity.py."""
    scheduler = models.CharField(max_length=255)
    started_at = models.FloatField()
    seen_at = models.FloatField()
    """By the clock of the holder. Nothing is decided by it; the holder's and another's clock may differ."""
    next_due_at = models.FloatField(null=True, blank=True)
    is_released = models.BooleanField(default=False)
    """Whether it stopped in good order."""
    version = models.PositiveBigIntegerField(default=0)
    """Grows with each change. Who sees it unchanged for the length of a lease may take over."""

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class BeatRun(models.Model):
    """When an entry of the schedule was sent last, so that another beat doesn't send it again."""

    key = models.CharField(max_length=64, unique=True)
    """A digest of app and entry: names may be longer, or differ in case alone, than an index takes."""
    name = models.CharField(max_length=255)
    entry = models.TextField()
    holder = models.CharField(max_length=255)
    began_at = models.FloatField()
    before = models.FloatField(null=True, blank=True)
    """When the entry had run before."""
    is_sent = models.BooleanField(default=False)
    """Whether sending it came to an end; what a beat died over is sent again."""

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.entry
