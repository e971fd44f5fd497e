"""Give a redrive to one runner at a time; the lease is in its row.

As with the outbox's queues, a runner that dies loses its lease by time alone. What two runners would do in spite of it
is bounded: a dead letter is claimed by one UPDATE, and a member changes its state once.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import router
from django.db.models import F, Q, QuerySet

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive.model import Redrive

LEASE = timedelta(seconds=30)
"""How long a runner may be silent before another takes its redrive over; longer than a chunk takes."""


def free(now: datetime, holder: str = "") -> Q:
    """Select redrives that nobody holds, or ``holder`` does."""
    return Q(held_until__isnull=True) | Q(held_until__lt=now) | Q(held_by="") | Q(held_by=holder)


class RedriveLease:
    """The right of ``holder`` to send a redrive's messages."""

    def __init__(self, pk: int, holder: str, now: Callable[[], datetime]) -> None:
        self.pk = pk
        self.holder = holder
        self._now = now
        self.is_new = False
        """Whether the last :meth:`hold` took it, rather than kept it."""
        self._held = False

    def hold(self) -> Redrive | None:
        """Take the lease or prolong it; return the redrive as it is now, None if it isn't running or another has it."""
        now = self._now()
        values: dict[str, Any] = {"held_by": self.holder, "held_until": now + LEASE}
        if not self._held:
            values |= {"run_from": now, "sent_before": F("sent")}
        running = self._rows().filter(free(now, self.holder), state=Redrive.State.RUNNING)
        if not running.update(**values):
            self.release()
            return None
        self.is_new, self._held = not self._held, True
        return self._rows().first()

    def release(self) -> None:
        if self._held:
            self._rows().filter(held_by=self.holder).update(held_by="", held_until=None)
        self._held = self.is_new = False

    def _rows(self) -> QuerySet[Redrive]:
        return Redrive.objects.using(router.db_for_write(DeadLetter)).filter(pk=self.pk)
