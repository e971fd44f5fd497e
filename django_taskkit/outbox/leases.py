"""Give each queue's messages to one relay at a time, so that several share the work and none breaks the order.

A lease is a row that is there while a relay has the queue. Each step is one statement, no transaction is held open,
and no lock: right on SQLite too, and a relay that dies loses its lease by time alone. The clocks of machines with
relays must agree to within seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, router, transaction
from django.db.models import Q

from django_taskkit.outbox.model import OutboxLease

LEASE = timedelta(seconds=60)
"""How long a relay may be silent before another takes its queue over; much longer than one message can take."""


class Lease:
    """The right of ``holder`` to send what waits for ``queue``."""

    def __init__(self, queue: str, holder: str, now: Callable[[], datetime]) -> None:
        self.queue = queue
        self._holder = holder
        self._now = now
        self._until = now()

    def take(self) -> bool:
        """Take the lease if nobody has it, nobody any more, or this relay still does; True if it is ours."""
        now = self._now()
        rows = OutboxLease.objects.using(self._using)
        values: dict[str, Any] = {"held_by": self._holder, "held_until": now + LEASE}
        free = Q(held_until__lt=now) | Q(held_by=self._holder)
        if not rows.filter(free, queue=self.queue).update(**values):
            if rows.filter(queue=self.queue).exists():
                return False
            try:
                with transaction.atomic(using=self._using):
                    rows.create(queue=self.queue, **values)
            except IntegrityError:
                return False
        self._until = values["held_until"]
        return True

    def keep(self) -> bool:
        """Make it last when half of its time is over; False if another relay has it meanwhile."""
        now = self._now()
        if now < self._until - LEASE / 2:
            return True
        rows = OutboxLease.objects.using(self._using).filter(queue=self.queue, held_by=self._holder)
        until = now + LEASE
        if now >= self._until or not rows.update(held_until=until):
            return False
        self._until = until
        return True

    def release(self) -> None:
        OutboxLease.objects.using(self._using).filter(queue=self.queue, held_by=self._holder).delete()

    @property
    def _using(self) -> str:
        return router.db_for_write(OutboxLease)
