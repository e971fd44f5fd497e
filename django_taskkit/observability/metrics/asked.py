"""What is asked when Prometheus scrapes the exporter: queues, outbox, spool, dead letters, relay, beat, gates.

Each part is asked by itself, so that a database that is down hides neither the broker's numbers nor the others'; what
could not be asked is missing rather than 0, and ``taskkit_exporter_answered`` says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from celery import Celery
from django.db import connections, router
from django.db.models import Count, Min, Model, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq import spool_files
from django_taskkit.dlq.durable import durable
from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.observability.metrics import catalogue, labels
from django_taskkit.observability.metrics.catalogue import Metric
from django_taskkit.outbox.model import OutboxMessage, RelayHeartbeat

logger = logging.getLogger("django_taskkit")

TIMEOUT = 5.0
"""Seconds that broker and database are given to answer; Prometheus waits for 10 by default."""

FRESH = 5.0
"""Seconds for which an answer is given again, for two Prometheus servers that scrape one after the other."""


@dataclass(frozen=True)
class Sample:
    """One number."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


Part = Callable[[Celery], Iterable[Sample]]


class Asked:
    """Asks all parts, and remembers the answers for a moment.

    Args:
        queues: names of those to ask about; none: the project's lanes and ``task_queues``, or Celery's default queue.
        clock: seconds, for how fresh an answer is.
    """

    def __init__(self, app: Celery, queues: Iterable[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._queues = tuple(queues)
        self._clock = clock
        self._one_at_a_time = threading.Lock()
        self._samples: list[Sample] = []
        self._fresh_until = float("-inf")
        self._troubles: dict[str, str] = {}

    def samples(self) -> list[Sample]:
        """Return all numbers; never raises."""
        with self._one_at_a_time:
            if self._clock() >= self._fresh_until:
                self._samples = list(self._ask())
                self._fresh_until = self._clock() + FRESH
            return self._samples

    def _ask(self) -> Iterator[Sample]:
        try:
            for name, part in self._parts().items():
                found = self._answer(name, part)
                yield Sample(catalogue.ANSWERED, (name,), float(found is not None))
                yield from found or ()
        finally:
            for connection in connections.all(initialized_only=True):  # of this thread, which is not heard of again
                if not connection.in_atomic_block:
                    connection.close()

    def _parts(self) -> dict[str, Part]:
        return {
            "queues": lambda app: of_queues(app, self._queues or queues_of(app)),
            "outbox": of_outbox,
            "spool": of_spool,
            "dead_letters": of_dead_letters,
            "relay": of_relay,
            "beat": of_beat,
            "gates": of_gates,
        }

    def _answer(self, name: str, part: Part) -> list[Sample] | None:
        try:
            found = list(part(self._app))
        except Exception as exc:
            said = f"{type(exc).__name__}: {exc}"
            if self._troubles.get(name) != said:
                logger.warning("metrics: the part %r gets no answer: %s", name, said)
            self._troubles[name] = said
            return None
        if self._troubles.pop(name, None):
            logger.info("metrics: the part %r gets answers again", name)
        return found


def queues_of(app: Celery) -> list[str]:
    """Return the queues of the project: those of its lanes and of ``task_queues``, or Celery's default queue."""
    return sorted({*labels.queues_of_lanes(), *app.amqp.queues})


def of_queues(app: Celery, names: Iterable[str]) -> Iterator[Sample]:
    from django_taskkit.observability.queues import look

    states = look(app, names, timeout=TIMEOUT)
    readers = _readers(app) if any(state.consumers is None for state in states) else None
    for state in states:
        lane = (labels.of_queue(state.name),)
        if state.depth is not None:
            yield Sample(catalogue.LANE_MESSAGES, lane, state.depth)
        oldest = 0.0 if state.depth == 0 else state.oldest  # nothing waits: no gap in the graph or in an alert
        if oldest is not None:
            yield Sample(catalogue.LANE_OLDEST, lane, oldest)
        consumers = state.consumers
        if consumers is None and readers is not None:
            consumers = readers.get(state.name, 0)
        if consumers is not None:
            yield Sample(catalogue.LANE_CONSUMERS, lane, consumers)


def _readers(app: Celery) -> dict[str, int] | None:
    """Return how many workers say that they read each queue; None if they can't be asked."""
    from django_taskkit.observability import workers

    if not workers.can_ask(app):
        return None
    readers: Counter[str] = Counter()
    for worker in workers.ask(app, timeout=1):
        readers.update(worker.queues)
    return readers


def of_outbox(app: Celery) -> Iterator[Sample]:
    now = timezone.now()
    due = Q(due_at__isnull=True) | Q(due_at__lte=now)
    with _database(OutboxMessage) as using:
        found = OutboxMessage.objects.using(using).aggregate(
            due=Count("pk", filter=due),
            later=Count("pk", filter=Q(due_at__gt=now)),
            oldest=Min(Coalesce("due_at", "created_at"), filter=due),
        )
    yield Sample(catalogue.OUTBOX_MESSAGES, ("due",), found["due"])
    yield Sample(catalogue.OUTBOX_MESSAGES, ("later",), found["later"])
    yield Sample(catalogue.OUTBOX_OLDEST, (), _since(found["oldest"], now))


def of_spool(app: Celery) -> Iterator[Sample]:
    yield Sample(catalogue.SPOOL_ENTRIES, ("files",), len(spool_files.names()))
    if name := conf.current().spool_queue:
        from django_taskkit.observability.queues import look

        for state in look(app, [name], timeout=TIMEOUT):
            if state.depth is not None:
                yield Sample(catalogue.SPOOL_ENTRIES, ("queue",), state.depth)
            elif state.kind == "missing":  # it is made when it is needed
                yield Sample(catalogue.SPOOL_ENTRIES, ("queue",), 0)


def of_dead_letters(app: Celery) -> Iterator[Sample]:
    with _database(DeadLetter) as using:
        waiting = DeadLetter.objects.using(using).filter(status__in=(Status.DEAD, Status.HELD)).order_by()
        found = dict(waiting.values_list("reason").annotate(number=Count("pk")))
    for reason in DeadLetter._meta.get_field("reason").choices or ():
        yield Sample(catalogue.DEAD_LETTERS, (str(reason[0]),), found.get(reason[0], 0))


def of_relay(app: Celery) -> Iterator[Sample]:
    with _database(RelayHeartbeat) as using:
        seen = RelayHeartbeat.objects.using(using).order_by("-seen_at").values_list("seen_at", flat=True).first()
    if seen is not None:
        yield Sample(catalogue.RELAY_AGE, (), _since(seen, timezone.now()))


def of_beat(app: Celery) -> Iterator[Sample]:
    from django_taskkit.beat import state

    beat = state(app)
    if beat is not None:
        yield Sample(catalogue.BEAT_AGE, (), beat.age)


def of_gates(app: Celery) -> Iterator[Sample]:
    from django_taskkit.base_tasks.gates.breaker import State
    from django_taskkit.base_tasks.gates.in_use import in_use

    app.loader.import_default_modules()
    levels = {State.CLOSED: 0.0, State.HALF_OPEN: 0.5, State.OPEN: 1.0}
    for name, standing in in_use(app).items():
        if standing.breaker is not None:
            yield Sample(catalogue.BREAKER_OPEN, (name,), levels[standing.breaker])
        if standing.budget is not None and standing.tokens:
            yield Sample(catalogue.BUDGET, (name,), standing.budget / standing.tokens)


def _since(moment: Any, now: Any) -> float:
    return max(0.0, (now - moment).total_seconds()) if moment is not None else 0.0


@contextmanager
def _database(model: type[Model]) -> Iterator[str]:
    """Give the alias of the database that has ``model``; a silent one is not waited for long."""
    using = router.db_for_read(model)
    waiting = nullcontext() if connections[using].in_atomic_block else durable(using, TIMEOUT)
    with waiting:
        yield using
