"""Run a redrive, a chunk at a time. Whoever calls :meth:`Runner.step` may be killed between any two statements."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from celery import Celery
from django.db import connections, router
from django.db.models import F, QuerySet
from django.utils import timezone

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.pause import Gaps, Troubles
from django_taskkit.dlq.preflight import Preflight
from django_taskkit.dlq.redrive import canary, control
from django_taskkit.dlq.redrive.chunk import CHUNK, reconcile, send_chunk
from django_taskkit.dlq.redrive.lease import RedriveLease
from django_taskkit.dlq.redrive.model import Redrive
from django_taskkit.dlq.redrive.outcomes import Outcomes
from django_taskkit.dlq.redrive.pace import Pace
from django_taskkit.outbox.turns import Turn

logger = logging.getLogger("django_taskkit")

GLANCE = 0.25
"""Seconds between looks at what is waited for: the end of a canary's step, a broker, the next message's time."""

ASKED_AGAIN = timedelta(minutes=5)
"""Between two questions to workers and broker: queues get readers, and tasks are deployed, while a redrive runs."""

FIRST_RETRY, LONGEST_RETRY = 1.0, 30.0
"""Seconds until a broker that was away is tried again, doubled each time."""


@dataclass(frozen=True)
class Step:
    """What one step did."""

    ours: bool
    """False: it isn't running (any more), or another runner has it."""
    sent: int = 0
    refused: int = 0
    wait: float = 0.0
    """Seconds after which the next step may have something to do."""


class Runner:
    """Sends the messages of one redrive for as long as it has the lease.

    Args:
        pk: the redrive's key.
        app: the Celery app whose broker takes the messages.
        holder: a name that no other runner has.
        ask: preflight may ask workers and broker, which takes a second or two every five minutes.
        clock: the time.
    """

    def __init__(
        self,
        pk: int,
        app: Celery,
        holder: str,
        ask: bool = True,
        clock: Callable[[], datetime] = timezone.now,
    ) -> None:
        self.pk = pk
        self.app = app
        self.lease = RedriveLease(pk, holder, clock)
        self.outcomes = Outcomes(pk)
        self._ask = ask
        self._asked = Turn(ASKED_AGAIN, clock)
        self._preflight: Preflight | None = None
        self._clock = clock
        self._pace: Pace | None = None
        self._is_noted = False
        """Whether the members say all that was sent; not so where another runner, or the database, went away."""
        self._retry = FIRST_RETRY
        self._retry_at: datetime | None = None
        self._troubles = Troubles()
        self._gaps = Gaps(connections[router.db_for_write(DeadLetter)].vendor)

    def step(self, limit: int = CHUNK) -> Step:
        """Send at most ``limit`` messages, if it is time for them.

        Raises what the database does.
        """
        redrive = self.lease.hold()
        if redrive is None:
            self._pace = None
            return Step(ours=False)
        if self.lease.is_new:
            self._is_noted = False
            self._pace = None
            self._asked.at_once()
        if not self._is_noted:
            # Only now nobody else changes its members.
            reconcile(redrive)
            redrive.refresh_from_db()
            self._is_noted = True
        if self._pace is None or self._pace.rate != redrive.rate:
            self._pace = Pace(redrive.rate, self._clock)
        if redrive.canary and not self._canary_lets(redrive):
            return Step(ours=True, wait=GLANCE)
        if self._retry_at is not None and self._clock() < self._retry_at:
            return Step(ours=True, wait=min(1.0, (self._retry_at - self._clock()).total_seconds()))
        allowed = self._pace.allowance(canary.room(redrive, min(limit, CHUNK)))
        if allowed < 1:
            return Step(ours=True, wait=min(GLANCE, self._pace.wait()) or GLANCE)
        return self._send(redrive, allowed, self._pace)

    def _send(self, redrive: Redrive, count: int, pace: Pace) -> Step:
        if redrive.started_at is None:
            _running(redrive).filter(started_at=None).update(started_at=self._clock())
        if not redrive.despite_preflight and self._asked.has_come():
            self._preflight = Preflight(
                self.app, queue=redrive.queue or None, even_if_ran=redrive.even_if_ran, ask=self._ask
            )
        self._gaps.leave()
        self._is_noted = False
        booked = send_chunk(
            redrive, count, self.app, None if redrive.despite_preflight else self._preflight, self._clock()
        )
        self._is_noted = True
        pace.spend(booked.sent)  # what is refused costs the workers nothing
        if not booked.tried:
            self._finish(redrive)
            return Step(ours=True)
        self._note(redrive, booked.outage)
        return Step(ours=True, sent=booked.sent, refused=booked.refused, wait=1.0 if booked.outage else 0.0)

    def _canary_lets(self, redrive: Redrive) -> bool:
        """Say whether the canary lets more through; stops the redrive if the failure is back."""
        self.outcomes.settle()
        redrive.refresh_from_db()
        if why := canary.objection(redrive):
            if control.stop(redrive, why):
                logger.warning("redrive %s has stopped: %s", redrive.pk, why)
            self.lease.release()
            return False
        if canary.is_complete(redrive):
            canary.advance(redrive)
        if canary.room(redrive, 1):
            return True
        if redrive.sent + redrive.refused >= redrive.total:
            self._finish(redrive)
        return False

    def _finish(self, redrive: Redrive) -> None:
        """All were sent or refused; a letter that was deleted meanwhile took its member along."""
        ended = _running(redrive).update(
            state=Redrive.State.FINISHED, ended_at=self._clock(), refused=F("total") - F("sent"), why=""
        )
        if ended:
            logger.info("redrive %s has sent all of its messages", redrive.pk)
        self.lease.release()

    def _note(self, redrive: Redrive, outage: str) -> None:
        if outage:
            self._troubles.begins("broker", "redrive %s waits: %s", redrive.pk, outage)
            self._retry_at = self._clock() + timedelta(seconds=self._retry)
            self._retry = min(self._retry * 2, LONGEST_RETRY)
        else:
            self._troubles.ends("broker", "redrive %s goes on", redrive.pk)
            self._retry_at, self._retry = None, FIRST_RETRY
        if redrive.why != outage:
            _running(redrive).update(why=outage)


def _running(redrive: Redrive) -> QuerySet[Redrive]:
    rows = Redrive.objects.using(router.db_for_write(DeadLetter))
    return rows.filter(pk=redrive.pk, state=Redrive.State.RUNNING)
