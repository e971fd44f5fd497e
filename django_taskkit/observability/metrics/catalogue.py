"""Every metric: its name, kind, unit, labels and meaning.

What counts, what shows it (Prometheus, OpenTelemetry), the alert rules, the dashboard and the page in the docs are made
from this list. Names follow Prometheus (base units, ``_total``); OpenTelemetry's are the same with dots and without the
suffixes, which its exporter for Prometheus puts back: https://opentelemetry.io/docs/specs/semconv/general/metrics/
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(str, Enum):
    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


TIMES = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Upper bounds in seconds: from what a fast task takes to what a slow one does."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Counters and histograms are counted where the thing happens: workers, web, beat, relay. Gauges describe what all of
    these share, so one process asks for them: ``manage.py taskkit metrics serve``.
    """

    name: str
    """Its name in Prometheus."""
    kind: Kind
    otel: str
    """Its name in OpenTelemetry."""
    unit: str
    """As OpenTelemetry writes it (UCUM): ``s``, or in braces what is counted."""
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


def _counter(name: str, what: str, help: str, *labels: str) -> Metric:
    return Metric(
        name=f"taskkit_{name}_total",
        kind=Kind.COUNTER,
        otel="taskkit." + name.replace("_", ".", 1),
        unit=f"{{{what}}}",
        help=help,
        labels=labels,
    )


def _seconds(name: str, help: str, *labels: str) -> Metric:
    return Metric(
        name=f"taskkit_{name}_seconds",
        kind=Kind.HISTOGRAM,
        otel="taskkit." + name.replace("_", ".", 1),
        unit="s",
        help=help,
        labels=labels,
        buckets=TIMES,
    )


def _gauge(name: str, what: str, help: str, *labels: str) -> Metric:
    suffix = "_seconds" if what == "s" else ""
    unit = what if what in ("s", "1") else f"{{{what}}}"
    return Metric(
        name=f"taskkit_{name}{suffix}",
        kind=Kind.GAUGE,
        otel="taskkit." + name.replace("_", ".", 1),
        unit=unit,
        help=help,
        labels=labels,
    )


SENT = _counter(
    "tasks_sent",
    "task",
    "Tasks that were sent, to the broker or into the outbox; retries and requeues are not among them.",
    *("task", "lane"),
)
STARTED = _counter(
    "tasks_started", "run", "Runs that began: first runs, retries, requeues and repeated deliveries.", "task", "lane"
)
REDELIVERED = _counter(
    "tasks_redelivered", "run", "Runs that began because the broker delivered a message again.", "task", "lane"
)
SUCCEEDED = _counter("tasks_succeeded", "run", "Runs that ended well, their result stored.", "task", "lane")
RETRIED = _counter(
    "tasks_retried", "retry", "Retries that were sent, to the broker or into the outbox.", *("task", "lane")
)
IGNORED = _counter(
    "tasks_ignored", "run", "Runs that ended in Ignore, such as those of a task that replaced itself.", "task", "lane"
)
DEAD_LETTERED = _counter(
    "tasks_dead_lettered",
    "task",
    "Messages that became dead letters, when the row is written.",
    "task",
    "reason",
)
REQUEUED = _counter("tasks_requeued", "task", "Dead letters that were put back on their queue.", "task")
RECOVERED = _counter("tasks_recovered", "task", "Requeued messages that succeeded.", "task")
DISCARDED = _counter("tasks_discarded", "task", "Dead letters that were closed without running them.", "task")
BREAKER_CHANGES = _counter(
    "breaker_changes", "change", "Changes of circuit breakers, by the state that they went to.", "dependency", "state"
)
IN_QUEUE = _seconds(
    "task_queue",
    "Time in the queue: from when the broker got the message, or its ETA if later, to the run.",
    "lane",
)
RUN = _seconds("task_run", "Time that runs took, whatever their end, unless their process was lost.", "task")

LANE_MESSAGES = _gauge(
    "lane_messages",
    "message",
    "Messages that wait for a worker, of all priorities; delayed ones and the outbox are not among them.",
    "lane",
)
LANE_OLDEST = _gauge("lane_oldest_age", "s", "How long the oldest message that is due has been waiting.", "lane")
LANE_CONSUMERS = _gauge("lane_consumers", "consumer", "Workers that read the queue.", "lane")
OUTBOX_MESSAGES = _gauge("outbox_messages", "message", "Messages in the outbox, by whether they are due.", "state")
OUTBOX_OLDEST = _gauge("outbox_oldest_age", "s", "How long the oldest message of the outbox has been due.")
SPOOL_ENTRIES = _gauge(
    "spool_entries",
    "dead letter",
    "Dead letters that wait for the database, in the queue or in files of the exporter's machine.",
    "place",
)
DEAD_LETTERS = _gauge("dead_letters", "task", "Dead letters that wait for somebody, held ones included.", "reason")
RELAY_AGE = _gauge("relay_last_seen_age", "s", "How long ago a relay was seen last; absent if there never was one.")
BEAT_AGE = _gauge("beat_last_seen_age", "s", "How long ago beat was seen last; absent if there never was one.")
BREAKER_OPEN = _gauge(
    "breaker_open",
    "1",
    "1 while a circuit breaker lets no task through, 0.5 while it probes, else 0.",
    "dependency",
)
BUDGET = _gauge("retry_budget_ratio", "1", "What is left of a retry budget; retries stop below 0.5.", "dependency")
ANSWERED = _gauge("exporter_answered", "1", "1 if the exporter got an answer, by what it asked; else 0.", "part")

METRICS = (
    *(SENT, STARTED, REDELIVERED, SUCCEEDED, RETRIED, IGNORED, DEAD_LETTERED, REQUEUED, RECOVERED, DISCARDED),
    *(BREAKER_CHANGES, IN_QUEUE, RUN),
    *(LANE_MESSAGES, LANE_OLDEST, LANE_CONSUMERS, OUTBOX_MESSAGES, OUTBOX_OLDEST, SPOOL_ENTRIES, DEAD_LETTERS),
    *(RELAY_AGE, BEAT_AGE, BREAKER_OPEN, BUDGET, ANSWERED),
)
"""All of them, in the order in which they are shown."""

COUNTED = tuple(metric for metric in METRICS if metric.kind is not Kind.GAUGE)
ASKED = tuple(metric for metric in METRICS if metric.kind is Kind.GAUGE)
BY_NAME = {metric.name: metric for metric in METRICS}
