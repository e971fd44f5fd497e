"""What is due, in which order it runs, and what time it is meanwhile."""

from __future__ import annotations

import base64
import threading
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from celery import Celery
from django.db.models.signals import post_save
from django.utils import timezone
from kombu.serialization import loads

from django_taskkit.exceptions import TaskkitError
from django_taskkit.outbox.delays import seconds_until
from django_taskkit.outbox.model import OutboxMessage
from django_taskkit.outbox.relay import Relay, Relayed
from django_taskkit.testing.broker import Broker, Stored, first_in_turn, in_turn
from django_taskkit.testing.clock import FakeClock
from django_taskkit.testing.delivery import HOSTNAME, Delivery
from django_taskkit.testing.events import Ran, Waiting
from django_taskkit.testing.faults import Faults
from django_taskkit.testing.transactions import as_in_worker, is_in_own_transaction

PriorityOrder = Literal["as_broker", "highest_first", "lowest_first", "none"]

REDIS_STEPS = (0, 3, 6, 9)
"""The priorities that kombu's Redis transport tells apart by default."""


class EndlessError(TaskkitError, AssertionError):
    """Messages follow each other without an end."""


class Engine:
    """Runs messages by the fake clock, those of the broker and those of the outbox.

    Args:
        app: the app whose messages they are.
        limit: how many may run in one go.
        priority_order: which priorities of a queue come first.
    """

    def __init__(self, app: Celery, limit: int, priority_order: PriorityOrder) -> None:
        self.app: Any = app
        self.limit = limit
        self.clock = FakeClock()
        self.faults = Faults(app)
        self.broker = Broker(self._read, rank_for(app, priority_order))
        self.ran: list[Ran] = []
        self.database_is_down = False
        self._delivery = Delivery(app, self.broker, self.clock, self.faults)
        self._relay: Relay | None = None
        self._outbox_used = False
        self._lock = threading.Lock()

    # -- from the beginning to the end

    def start(self) -> None:
        post_save.connect(self._note_outbox, sender=OutboxMessage)

    def stop(self) -> None:
        post_save.disconnect(self._note_outbox, sender=OutboxMessage)
        self._delivery.close()
        self.faults.restore()

    @property
    def is_running(self) -> bool:
        return self._lock.locked()

    # -- running

    def run_one(self) -> Ran | None:
        """Run the next message that is due; None if none is."""
        with self._going() as count:
            return next(self._due_runs(count), None)

    def run_due(self) -> list[Ran]:
        """Run what is due, and what that sends, until nothing is."""
        with self._going() as count:
            return list(self._due_runs(count))

    def run_until(self, moment: datetime) -> list[Ran]:
        """Run what is due until ``moment``, each at its time; then it is that moment."""
        with self._going() as count:
            ran = list(self._runs(count, moment))
            self.clock.move_to(moment)
            return ran

    def run_all(self) -> list[Ran]:
        """Run everything that waits, each at its time, until nothing is left."""
        with self._going() as count:
            return list(self._runs(count, None))

    def relay(self) -> Relayed:
        """Do one round of a relay of its own, which brings in what was spooled as well."""
        with as_in_worker():
            return Relay(self.app, name=HOSTNAME, clock=_now).run_once()

    def _runs(self, count: Counter[str], until: datetime | None) -> Iterator[Ran]:
        yield from self._due_runs(count)
        while (due := self._next_due()) is not None and (until is None or due <= until):
            self.clock.move_to(due)
            yield from self._due_runs(count)

    def _due_runs(self, count: Counter[str]) -> Iterator[Ran]:
        while True:
            self._send_outbox()
            stored = first_in_turn(filter(self._is_due, self.broker.messages()))
            if stored is None:
                return
            if count.total() >= self.limit:
                raise self._endless(count)
            count[stored.task] += 1
            ran = self._delivery.run(stored)
            self.ran.append(ran)
            yield ran

    def refuse_endless(self, ran: list[Ran]) -> None:
        """Raise EndlessError if so many have run that it can't be meant."""
        if len(ran) >= self.limit:
            raise self._endless(Counter(run.task for run in ran))

    def _endless(self, count: Counter[str]) -> EndlessError:
        task, runs = count.most_common(1)[0]
        return EndlessError(
            f"{count.total()} messages ran in one go and more follow, {runs} of them of task {task!r}: it retries or "
            f"calls itself for ever. Limit its retries, or raise the limit: inline_worker(limit={self.limit * 10})"
        )

    @contextmanager
    def _going(self) -> Iterator[Counter[str]]:
        if not self._lock.acquire(blocking=False):
            raise TaskkitError("messages are being run already; a task can't run others, it can only send them")
        try:
            yield Counter()
        finally:
            self._lock.release()

    # -- what waits

    def waiting(self) -> list[Waiting]:
        """Return what has not run, in the order in which it is due."""
        again = {ran.id for ran in self.ran}
        now = self.clock.now()
        found = [
            Waiting(
                task=stored.task,
                id=stored.id,
                queue=stored.queue,
                due=stored.due if stored.due and stored.due > now else None,
                where="broker",
                is_again=stored.id in again,
                is_known=self._is_known(stored.task),
            )
            for stored in in_turn(self.broker.messages())
            if stored.task
        ]
        found += [
            Waiting(
                task=row.task_name,
                id=row.task_id,
                queue=row.queue,
                due=_aware(row.due_at),
                where="outbox",
                is_again=row.task_id in again,
                is_known=self._is_known(row.task_name),
            )
            for row in self._outbox_rows()
        ]
        return sorted(found, key=lambda waiting: waiting.due or now)

    def _is_known(self, task_name: str) -> bool:
        return task_name in self.app.tasks

    def _is_due(self, stored: Stored) -> bool:
        return self._is_known(stored.task) and (stored.due is None or stored.due <= self.clock.now())

    def _next_due(self) -> datetime | None:
        """Return when something is due next; not when it is due already, and only can't be sent."""
        now = self.clock.now()
        moments = [waiting.due for waiting in self.waiting() if waiting.due and _is_awaited(waiting)]
        return min((moment for moment in moments if moment > now), default=None)

    def _read(self, raw: dict[str, Any]) -> tuple[str, str, datetime | None]:
        """Return name, id and due time of a message; empty for one that is no task's."""
        facts: Any = raw.get("headers") or {}
        if "task" not in facts:
            facts = self._body_of(raw)
        if not isinstance(facts, dict) or not isinstance(facts.get("task"), str):
            return "", "", None
        seconds = seconds_until(facts.get("eta"), self.app)
        due = self.clock.now() + timedelta(seconds=seconds) if seconds > 0 else None
        return facts["task"], str(facts.get("id") or ""), due

    def _body_of(self, raw: dict[str, Any]) -> Any:
        try:
            body = raw["body"]
            if (raw.get("properties") or {}).get("body_encoding") == "base64":
                body = base64.b64decode(body)
            return loads(body, raw["content-type"], raw["content-encoding"], accept={"application/json"})
        except Exception:  # not Celery's; a worker would say what is wrong with it
            return None

    # -- the outbox

    def _note_outbox(self, **kwargs: Any) -> None:
        self._outbox_used = True

    def _outbox_rows(self) -> Iterable[OutboxMessage]:
        return OutboxMessage.objects.order_by("pk") if self._outbox_used and not self.database_is_down else ()

    def _send_outbox(self) -> None:
        """Have the relay send what is due, unless it could not see it yet: a transaction of the test's own is open."""
        if not self._outbox_used or self.broker.is_down or self.database_is_down or is_in_own_transaction():
            return
        if self._relay is None:
            self._relay = Relay(self.app, name=HOSTNAME, clock=_now)
        with as_in_worker():
            while self._relay.run_once().published:
                pass
        self._outbox_used = OutboxMessage.objects.exists()


def _is_awaited(waiting: Waiting) -> bool:
    return waiting.is_known or waiting.where == "outbox"


def rank_for(app: Any, order: PriorityOrder) -> Callable[[str, Any], int]:
    """Return what gives a message on a queue its rank by its priority, lowest first.

    Raises:
        ValueError: there is no such order.
    """
    if order not in get_args(PriorityOrder):
        raise ValueError(f"priority_order={order!r} makes no sense; give one of {', '.join(get_args(PriorityOrder))}")
    driver = _driver(app) if order == "as_broker" else order
    if driver in ("redis", "lowest_first"):
        steps = (app.conf.broker_transport_options or {}).get("priority_steps", REDIS_STEPS)
        return lambda queue, priority: bisect(steps, priority or 0) if driver == "redis" else priority or 0
    if driver == "highest_first":
        return lambda queue, priority: -(priority or 0)
    if driver == "amqp":
        return lambda queue, priority: -min(priority or 0, _max_priority(app, queue))
    return lambda queue, priority: 0


def _driver(app: Any) -> str:
    """Return what kind of broker the project has, without asking it for anything."""
    try:
        return str(app.connection_for_write().get_transport_cls().driver_type)
    except Exception:  # its client is not installed where the tests run
        return ""


def _max_priority(app: Any, name: str) -> int:
    """Return the highest priority that RabbitMQ tells apart on a queue: 0 unless it was declared so."""
    queue = dict.get(app.amqp.queues, name)
    arguments = getattr(queue, "queue_arguments", None) or {}
    return int(getattr(queue, "max_priority", None) or arguments.get("x-max-priority") or 0)


def _now() -> datetime:
    return timezone.now()


def _aware(moment: datetime | None) -> datetime | None:
    if moment is None or timezone.is_aware(moment):
        return moment
    return timezone.make_aware(moment)
