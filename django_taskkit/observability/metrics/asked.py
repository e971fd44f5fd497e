"""What is asked when Prometheus scrapes the exporter: queues, outbox, spool, dead letters, relay, beat, gates.

Broker, database and shared store are asked side by side, and all have one deadline (:mod:`side_by_side`), so that one
that is silent hides neither the others' numbers nor the whole page. What could not be asked is missing rather than 0,
and ``taskkit_exporter_answered`` says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from celery import Celery
from django.db import connections, router
from django.db.models import Count, Min, Model, Q
from django.db.models.functions import Coalesce
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq import spool_files
from django_taskkit.dlq.durable import durable
from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.exceptions import BrokerUnreachableError
from django_taskkit.observability.metrics import catalogue, labels
from django_taskkit.observability.metrics.catalogue import Metric
from django_taskkit.observability.metrics.side_by_side import Answer, Question, SideBySide
from django_taskkit.outbox.model import OutboxMessage, RelayHeartbeat

if TYPE_CHECKING:
    from django_taskkit.observability.queues import QueueState

logger = logging.getLogger("django_taskkit")

DEADLINE = 8.0
"""Seconds after which a scrape shows what is there; Prometheus waits for 10 by default."""

TIMEOUT = 5.0
"""Seconds that broker and database are given to answer one question."""

FRESH = 5.0
"""Seconds for which an answer is given again, for two Prometheus servers that scrape one after the other."""


@dataclass(frozen=True)
class Sample:
    """One number."""

    metric: Metric
    labels: tuple[str, ...]
    value: float


Part = Callable[[Celery], Iterable[Sample]]
Look = Callable[[Celery, Iterable[str]], "list[QueueState]"]

DATABASE = "database"
ASKS = {"queues": "broker", "spool": "broker", "gates": "shared store"}
"""Whom a part asks; all others the database."""


class Asked:
    """Asks all parts, and remembers the answers for a moment.

    Args:
        queues: names of those to ask about; none: the project's lanes and ``task_queues``, or Celery's default queue.
        clock: seconds, for how fresh an answer is.
        deadline: seconds after which no answer is waited for.
    """

    def __init__(
        self,
        app: Celery,
        queues: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
        deadline: float = DEADLINE,
    ) -> None:
        self._app = app
        self._queues = tuple(queues)
        self._clock = clock
        self._deadline = deadline
        self._side_by_side = SideBySide(_close_connections)
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
        questions = [
            Question(name, ASKS.get(name, DATABASE), lambda part=part: part(self._app))  # type: ignore[misc]
            for name, part in self._parts().items()
        ]
        # In a transaction of the caller's, such as a test's, nobody else sees what it sees.
        here = {DATABASE} if any(found.in_atomic_block for found in connections.all(initialized_only=True)) else set()
        for name, answer in self._side_by_side.ask(questions, self._deadline, here=here).items():
            self._say(name, answer)
            yield Sample(catalogue.ANSWERED, (name,), float(answer.is_whole))
            yield from answer.found

    def _parts(self) -> dict[str, Part]:
        look = _Together(lambda app: [*self._names(app), *filter(None, [conf.current().spool_queue])]).look
        return {
            "queues": lambda app: of_queues(app, self._names(app), look),
            "outbox": of_outbox,
            "spool": lambda app: of_spool(app, look),
            "dead_letters": of_dead_letters,
            "relay": of_relay,
            "beat": of_beat,
            "gates": of_gates,
        }

    def _names(self, app: Celery) -> Iterable[str]:
        return self._queues or queues_of(app)

    def _say(self, name: str, answer: Answer) -> None:
        if not answer.is_whole:
            exc = answer.error
            said = f"{type(exc).__name__}: {exc}"
            if self._troubles.get(name) != said:
                logger.warning("metrics: the part %r gets no answer: %s", name, said)
            self._troubles[name] = said
        elif self._troubles.pop(name, None):
            logger.info("metrics: the part %r gets answers again", name)


class _Together:
    """Asks the broker once for the queues of several parts."""

    def __init__(self, names: Callable[[Celery], Iterable[str]]) -> None:
        self._names = names
        self._states: dict[str, QueueState] = {}
        self._error: Exception | None = None
        self._is_asked = False

    def look(self, app: Celery, names: Iterable[str]) -> list[QueueState]:
        if not self._is_asked:
            self._is_asked = True
            try:
                self._states = {state.name: state for state in _look(app, self._names(app))}
            except Exception as exc:
                self._error = exc
        if self._error is not None:
            raise self._error
        return [self._states[name] for name in dict.fromkeys(names) if name in self._states]


def _look(app: Celery, names: Iterable[str]) -> list[QueueState]:
    from django_taskkit.observability import queues

    return queues.look(app, names, timeout=TIMEOUT)


def _close_connections() -> None:
    """Close those of this thread, which is not heard of again."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            with suppress(Exception):  # PyMySQL complains of one that was cut
                connection.close()


def queues_of(app: Celery) -> list[str]:
    """Return the queues of the project: those of its lanes and of ``task_queues``, or Celery's default queue."""
    return sorted({*labels.queues_of_lanes(), *app.amqp.queues})


def of_queues(app: Celery, names: Iterable[str], look: Look = _look) -> Iterator[Sample]:
    """Yield the numbers of each lane: of several queues with one name their sum, and the oldest of all."""
    states = look(app, names)
    depths: dict[str, float] = {}
    oldest: dict[str, float] = {}
    for state in states:
        lane = labels.lane_of(state.name)
        if state.depth is not None:
            depths[lane] = depths.get(lane, 0) + state.depth
        age = 0.0 if state.depth == 0 else state.oldest  # nothing waits: no gap in the graph or in an alert
        if age is not None:
            oldest[lane] = max(oldest.get(lane, 0.0), age)
    yield from (Sample(catalogue.LANE_MESSAGES, (lane,), depth) for lane, depth in depths.items())
    yield from (Sample(catalogue.LANE_OLDEST, (lane,), age) for lane, age in oldest.items())
    # These take a second and more; what is known is known already.
    readers = _readers(app) if any(state.consumers is None for state in states) else None
    consumers: dict[str, float] = {}
    for state in states:
        known = state.consumers
        if known is None and readers is not None:
            known = readers.get(state.name, 0)
        if known is not None:
            lane = labels.lane_of(state.name)
            consumers[lane] = consumers.get(lane, 0) + known
    yield from (Sample(catalogue.LANE_CONSUMERS, (lane,), number) for lane, number in consumers.items())


def _readers(app: Celery) -> dict[str, int] | None:
    """Return how many workers say that they read each queue; None if they can't be asked."""
    from django_taskkit.observability import workers

    try:
        if not workers.can_ask(app):
            return None
        readers: Counter[str] = Counter()
        for worker in workers.ask(app, timeout=1):
            readers.update(worker.queues)
    except BrokerUnreachableError:
        return None
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


def of_spool(app: Celery, look: Look = _look) -> Iterator[Sample]:
    yield Sample(catalogue.SPOOL_ENTRIES, ("files",), len(spool_files.names()))
    if name := conf.current().spool_queue:
        for state in look(app, [name]):
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
