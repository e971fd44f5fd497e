"""What the relay does for redrives: it carries on those that nobody runs, and looks how those that were sent end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from celery import Celery
from django.db import router
from django.db.models import F, Q, QuerySet
from django.utils import timezone

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive.lease import free
from django_taskkit.dlq.redrive.model import Redrive
from django_taskkit.dlq.redrive.outcomes import Outcomes
from django_taskkit.dlq.redrive.runner import Runner

logger = logging.getLogger("django_taskkit")

SETTLE = timedelta(seconds=2)
"""Between looks at what became of messages that were sent."""

SETTLING = 0.2
"""Seconds that such a look may take per redrive; the outbox waits meanwhile."""

WATCHED = timedelta(days=7)
"""How long after a redrive's end its messages are still looked at; one that is lost never ends."""


@dataclass(frozen=True)
class Carried:
    """What one round did."""

    sent: int = 0
    refused: int = 0
    at_work: bool = False
    """Whether a redrive is under way, and only waits for its pace, or for its canary."""


class Carrier:
    """Runs all redrives that are to run and that nobody else runs, a small chunk of each per round."""

    def __init__(
        self,
        app: Celery,
        holder: str,
        limit: int = 200,
        ask: bool = True,
        clock: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.app = app
        self._ask = ask
        self.holder = holder
        self.limit = limit
        self._clock = clock
        self._runners: dict[int, Runner] = {}
        self._outcomes: dict[int, Outcomes] = {}
        self._settled_at: datetime | None = None

    def carry_on(self) -> Carried:
        """Do one round. What is wrong with one redrive keeps no other from its work."""
        sent = refused = 0
        at_work = False
        keys = set(
            self._rows()
            .filter(free(self._clock(), self.holder), state=Redrive.State.RUNNING)
            .values_list("pk", flat=True)
        )
        for gone in self._runners.keys() - keys:
            self._runners.pop(gone).lease.release()
        for pk in sorted(keys):
            runner = self._runners.get(pk) or Runner(pk, self.app, self.holder, self._ask, self._clock)
            self._runners[pk] = runner
            try:
                step = runner.step(self.limit)
            except Exception:
                logger.exception("redrive %s could not go on; it is tried again", pk)
                del self._runners[pk]
                continue
            sent, refused, at_work = sent + step.sent, refused + step.refused, at_work or step.ours
        self._settle()
        return Carried(sent=sent, refused=refused, at_work=at_work)

    def release(self) -> None:
        """Let others have them at once."""
        while self._runners:
            self._runners.popitem()[1].lease.release()

    def _settle(self) -> None:
        now = self._clock()
        if self._settled_at is not None and timedelta(0) <= now - self._settled_at < SETTLE:
            return
        self._settled_at = now
        recent = Q(ended_at__isnull=True) | Q(ended_at__gte=now - WATCHED)
        unsettled = self._rows().filter(recent, sent__gt=F("recovered") + F("failed_again"))
        keys = set(unsettled.exclude(state=Redrive.State.PREPARING).values_list("pk", flat=True))
        for gone in self._outcomes.keys() - keys:
            del self._outcomes[gone]
        for pk in keys:
            self._outcomes.setdefault(pk, Outcomes(pk)).settle_for(SETTLING)

    def _rows(self) -> QuerySet[Redrive]:
        return Redrive.objects.using(router.db_for_write(DeadLetter))
