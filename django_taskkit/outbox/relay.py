"""The relay: sends what waits in the outbox, carries redrives on, and brings in what could not be written down.

Every message is sent at least once, and those of one queue in the order in which they were written. A row is deleted
when the broker has confirmed its message; a relay that dies in between leaves it, and another sends it again.
"""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from os import getpid
from threading import Event
from typing import Any

from celery import Celery
from django.db import connections, router
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Length
from django.utils import timezone

from django_taskkit.dlq.death import Death
from django_taskkit.dlq.durable import forget_connection
from django_taskkit.dlq.models import Reason
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.dlq.recorder import record
from django_taskkit.dlq.redrive.carrying import Carrier
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.outbox.leases import Lease
from django_taskkit.outbox.model import OutboxMessage, RelayHeartbeat
from django_taskkit.outbox.sending import FirstPublisher
from django_taskkit.outbox.turns import Turn

logger = logging.getLogger("django_taskkit")

REFUSALS = 10
"""How often the broker may refuse a message before it is a dead letter."""

FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=10), timedelta(hours=1)
"""How long a refused message waits, doubled each time."""

AT_ONCE, AT_ONCE_BYTES = 50, 1_000_000
"""Rows, and bytes of their bodies, that are in memory at a time; one message may be larger."""

HEARTBEAT = timedelta(seconds=10)

BRING_IN = timedelta(seconds=5)
"""Between looks for dead letters elsewhere, each of which opens a connection to the broker; a look that finds some is
followed by another at once."""

PRUNE, STARTS_KEPT = timedelta(minutes=5), timedelta(days=7)
"""How often counts of starts are forgotten, and for how long they are kept; no broker waits longer to deliver again."""

LONGEST_BACKOFF = 30.0


@dataclass
class Relayed:
    """What one round did."""

    published: int = 0
    refused: int = 0
    """Messages that the broker did not take; they are tried again later."""
    dead: int = 0
    """Messages that it refused for the last time; they are dead letters now."""
    spooled: int = 0
    """Dead letters that were brought in from the spool."""
    taken_in: int = 0
    """Messages that were brought in from the broker's own dead-letter queues."""
    redriven: int = 0
    """Members of redrives that were sent or refused."""
    redriving: bool = False
    """Whether a redrive is under way that waits for its pace or for its canary."""
    errors: tuple[str, ...] = ()

    @property
    def did_something(self) -> bool:
        return bool(self.published or self.dead or self.spooled or self.taken_in or self.redriven)


class Relay:
    """Sends what is due, round by round.

    Args:
        app: the Celery app whose broker takes the messages.
        name: what others see; two with one name share no lease.
        batch: how many messages of one queue a round sends, and how many dead letters it brings in.
        clock: the time, with a time zone if ``USE_TZ`` is on.
    """

    def __init__(
        self, app: Celery, name: str = "", batch: int = 100, clock: Callable[[], datetime] = timezone.now
    ) -> None:
        self.app = app
        self.name = bounded(name or f"{socket.gethostname()}:{getpid()}")
        self.batch = batch
        self._holder = f"{self.name[:200]} {uuid.uuid4().hex[:8]}"  # two runs of the beat task have one name
        self._clock = clock
        self._stop = Event()
        self._heartbeat, self._prune = Turn(HEARTBEAT, clock), Turn(PRUNE, clock)
        self._spool, self._intake = Turn(BRING_IN, clock), Turn(BRING_IN, clock)
        self._redrives = Carrier(app, self._holder, clock=clock)
        self._is_known = False
        self._sent: set[int] = set()
        """Rows whose messages were sent and that the database did not delete yet."""

    def run(
        self, stop: Event, interval: float = 1.0, on_round: Callable[[Relayed], object] = lambda done: None
    ) -> None:
        """Do rounds until ``stop`` is set; nothing that the broker or the database does ends it.

        After a round that had something to do the next one follows at once; after one with errors it waits longer each
        time, at most half a minute. A round that is under way ends with the message that it is sending.
        """
        self._stop = stop
        failures = 0
        while not stop.is_set():
            try:
                done = self.run_once()
            except Exception as exc:
                logger.exception("the relay could not work")
                done = Relayed(errors=(_said(exc),))
            close_old_connections()
            on_round(done)
            failures = failures + 1 if done.errors else 0
            if failures:
                stop.wait(min(max(interval, 0.1) * 2**failures, LONGEST_BACKOFF))
            elif not done.did_something:
                stop.wait(interval)
        self.release()

    def run_once(self) -> Relayed:
        """Send what is due and bring in what waits; an error of one part doesn't keep the others from their work."""
        from django_taskkit.dlq import intake, spool
        from django_taskkit.worker.delivery_limit import forget_starts

        def bring_in(turn: Turn, drain: Callable[[Celery, int], int]) -> int:
            count = drain(self.app, self.batch) if turn.has_come() else 0
            if count:
                turn.at_once()
            return count

        done = Relayed()
        parts: tuple[tuple[str, Callable[[], object]], ...] = (
            ("heartbeat", self._beat),
            ("outbox", lambda: self._send(done)),
            ("redrives", lambda: self._redrive(done)),
            ("spool", lambda: setattr(done, "spooled", bring_in(self._spool, spool.drain))),
            ("intake", lambda: setattr(done, "taken_in", bring_in(self._intake, intake.drain))),
            ("starts", lambda: self._prune.has_come() and forget_starts(STARTS_KEPT)),
        )
        for name, work in parts:
            if self._stop.is_set():
                break
            try:
                work()
            except BrokerUnreachableError as exc:
                logger.warning("relay: %s", exc)
                done.errors += (f"{name}: {exc}",)
            except Exception as exc:
                logger.exception("relay: the part %r failed", name)
                done.errors += (f"{name}: {_said(exc)}",)
                forget_connection(router.db_for_write(OutboxMessage))
        return done

    def release(self) -> None:
        """Let other relays carry on the redrives of this one at once, rather than after half a minute."""
        with suppress(Exception):
            self._redrives.release()

    def _redrive(self, done: Relayed) -> None:
        carried = self._redrives.carry_on()
        done.redriven, done.redriving = carried.sent + carried.refused, carried.at_work

    def waiting(self) -> tuple[int, float]:
        """Return how many messages are due, and for how many seconds the oldest of them has been."""
        due = self._due().order_by()
        oldest = due.order_by("pk").values_list("due_at", "created_at").first()
        if oldest is None:
            return 0, 0.0
        return due.count(), max(0.0, (self._clock() - (oldest[0] or oldest[1])).total_seconds())

    def _beat(self) -> None:
        if not self._heartbeat.has_come():
            return
        now = self._clock()
        beats = RelayHeartbeat.objects.using(router.db_for_write(RelayHeartbeat))
        beats.update_or_create(name=self.name, defaults={"seen_at": now}, create_defaults=self._first_beat(now))
        if not self._is_known:
            beats.filter(seen_at__lt=now - timedelta(days=1)).delete()
        self._is_known = True

    def _first_beat(self, now: datetime) -> dict[str, Any]:
        return {"name": self.name, "started_at": now, "seen_at": now}

    def _due(self) -> QuerySet[OutboxMessage]:
        rows = OutboxMessage.objects.using(router.db_for_write(OutboxMessage))
        return rows.filter(Q(due_at__isnull=True) | Q(due_at__lte=self._clock()))

    def _send(self, done: Relayed) -> None:
        self._delete_sent()
        queues = list(self._due().order_by().values_list("queue", flat=True).distinct())
        if not queues:
            return
        publisher = FirstPublisher(self.app)
        with publisher:
            for queue in queues:
                lease = Lease(queue, self._holder, self._clock)
                if self._stop.is_set() or not lease.take():
                    continue
                try:
                    self._send_queue(queue, lease, publisher, done)
                finally:
                    lease.release()

    def _send_queue(self, queue: str, lease: Lease, publisher: FirstPublisher, done: Relayed) -> None:
        for rows in self._chunks(queue):
            try:
                for row in rows:
                    if self._stop.is_set() or not lease.keep():
                        return
                    if self._send_one(row, publisher, done):
                        self._sent.add(row.pk)
                    self._beat()
            finally:
                self._delete_sent()

    def _delete_sent(self) -> None:
        if self._sent:
            OutboxMessage.objects.using(router.db_for_write(OutboxMessage)).filter(pk__in=self._sent).delete()
            self._sent.clear()

    def _chunks(self, queue: str) -> Iterator[list[OutboxMessage]]:
        """Yield the due rows of a queue in their order, few at a time and fewer if they are large."""
        due = self._due().filter(queue=queue).order_by("pk")
        sizes = list(due.annotate(size=Length("body")).values_list("pk", "size")[: self.batch])
        keys: list[int] = []
        total = 0
        for pk, size in sizes:
            if keys and (len(keys) >= AT_ONCE or total + size > AT_ONCE_BYTES):
                yield list(due.filter(pk__in=keys))
                keys, total = [], 0
            keys.append(pk)
            total += size
        if keys:
            yield list(due.filter(pk__in=keys))

    def _send_one(self, row: OutboxMessage, publisher: FirstPublisher, done: Relayed) -> bool:
        """Publish one message; False if it stays."""
        for connection_is_new in (False, True):
            try:
                publisher.send(row.envelope)
                break
            except BrokerUnreachableError as exc:
                # A broker that takes connections and confirms nothing, as RabbitMQ in an alarm, refuses no message.
                if isinstance(exc.__cause__, TimeoutError) or not publisher.is_reachable():
                    raise
                # Where the old connection was just broken, the message keeps its place in the order.
                if connection_is_new:
                    return self._refuse(row, exc, done)
            except Exception as exc:  # whatever is odd about this one, the next ones must go on
                publisher.renew()
                return self._refuse(row, exc, done)
        done.published += 1
        return True

    def _refuse(self, row: OutboxMessage, exc: Exception, done: Relayed) -> bool:
        attempts = row.attempts + 1
        logger.warning("relay: %s was refused (%s of %s): %s", row, attempts, REFUSALS, exc)
        if attempts >= REFUSALS:
            death = Death.by_exception(
                row.envelope, exc, reason=Reason.PUBLISH_FAILED, task_name=row.task_name, worker=self.name
            )
            if record(death):
                done.dead += 1
                return True
        pause = min(FIRST_PAUSE * 2 ** min(attempts - 1, 20), LONGEST_PAUSE)
        OutboxMessage.objects.using(router.db_for_write(OutboxMessage)).filter(pk=row.pk).update(
            attempts=F("attempts") + 1, last_error=_said(exc), due_at=self._clock() + pause
        )
        done.refused += 1
        return False


def close_old_connections() -> None:
    """Close connections that are broken or too old; one with an open transaction is left alone."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            with suppress(Exception):
                connection.close_if_unusable_or_obsolete()


def _said(exc: BaseException) -> str:
    return storable(f"{type(exc).__name__}: {exc}")[:1000]
