"""Alert rules for Prometheus, made from the catalogue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django_taskkit.observability.metrics.catalogue import (
    ANSWERED,
    BEAT_AGE,
    BREAKER_OPEN,
    DEAD_LETTERED,
    IN_QUEUE,
    LANE_CONSUMERS,
    LANE_MESSAGES,
    LANE_OLDEST,
    OUTBOX_OLDEST,
    REDELIVERED,
    RELAY_AGE,
    RETRIED,
    SPOOL_ENTRIES,
    STARTED,
    Metric,
)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One alert."""

    name: str
    expr: str
    lasts: str
    """For how long the expression must hold, in Prometheus' form."""
    summary: str
    """For whoever is woken; ``{{ $labels.lane }}`` and the like are filled in by Prometheus."""
    remedy: str
    metrics: tuple[Metric, ...]
    """What the expression is made of."""
    severity: str = "warning"


def rules(oldest: float = 300.0, waiting: float = 60.0) -> tuple[Rule, ...]:
    """Return the alerts.

    Args:
        oldest: seconds for which a message may wait in a lane or, due, in the outbox.
        waiting: seconds that 95 of 100 runs may have waited in their queue.
    """
    return (
        Rule(
            name="TaskkitDeadLetters",
            # A series that begins with a death has not increased, for Prometheus: the first one is told by its newness.
            expr=(
                f"sum by (task, reason) (increase({DEAD_LETTERED.name}[10m])) > 0 or "
                f"(sum by (task, reason) ({DEAD_LETTERED.name}) > 0 "
                f"unless sum by (task, reason) ({DEAD_LETTERED.name} offset 10m))"
            ),
            lasts="0m",
            summary="{{ $labels.task }} died ({{ $labels.reason }})",
            remedy="Look at the dead letter in the admin, or `manage.py taskkit list`; fix the cause, then requeue.",
            metrics=(DEAD_LETTERED,),
        ),
        Rule(
            name="TaskkitLaneTooOld",
            expr=f"max by (lane) ({LANE_OLDEST.name}) > {oldest:g}",
            lasts="1m",
            summary="The oldest message of lane {{ $labels.lane }} waits for {{ $value | humanizeDuration }}",
            remedy="Start more workers for the lane, or see what its workers are busy with.",
            metrics=(LANE_OLDEST,),
            severity="critical",
        ),
        Rule(
            name="TaskkitLaneWithoutConsumer",
            expr=f"max by (lane) ({LANE_CONSUMERS.name}) == 0",
            lasts="5m",
            summary="No worker reads lane {{ $labels.lane }}",
            remedy="Start a worker for it (`manage.py taskkit workers`); `taskkit routes` says what goes there.",
            metrics=(LANE_CONSUMERS,),
            severity="critical",
        ),
        Rule(
            name="TaskkitWaitsTooLong",
            expr=(f"histogram_quantile(0.95, sum by (lane, le) (rate({IN_QUEUE.name}_bucket[10m]))) > {waiting:g}"),
            lasts="5m",
            summary="One of twenty tasks of lane {{ $labels.lane }} waits longer than {{ $value | humanizeDuration }}",
            remedy="Start more workers for the lane, or move slow tasks to a lane of their own.",
            metrics=(IN_QUEUE,),
        ),
        Rule(
            name="TaskkitRetriesManyRuns",
            expr=(
                f"sum by (task) (rate({RETRIED.name}[15m])) / sum by (task) (rate({STARTED.name}[15m])) > 0.5 "
                f"and sum by (task) (increase({STARTED.name}[15m])) > 10"
            ),
            lasts="5m",
            summary="More than half of the runs of {{ $labels.task }} end in a retry",
            remedy="What the task needs is likely down; a breaker or a retry budget keeps the pressure off.",
            metrics=(RETRIED, STARTED),
        ),
        Rule(
            name="TaskkitRedeliveries",
            expr=f"sum by (task) (increase({REDELIVERED.name}[15m])) > 10",
            lasts="5m",
            summary="The broker delivers messages of {{ $labels.task }} again and again",
            remedy="Workers are killed, or runs outlast Redis' visibility timeout or RabbitMQ's consumer timeout.",
            metrics=(REDELIVERED,),
        ),
        Rule(
            name="TaskkitOutboxTooOld",
            expr=f"max({OUTBOX_OLDEST.name}) > {oldest:g}",
            lasts="1m",
            summary="A message in the outbox is due for {{ $value | humanizeDuration }}",
            remedy="See whether a relay runs (`manage.py taskkit relay`) and the broker takes messages.",
            metrics=(OUTBOX_OLDEST,),
            severity="critical",
        ),
        Rule(
            name="TaskkitRelayGone",
            expr=f"min({RELAY_AGE.name}) > 120",
            lasts="1m",
            summary="No relay was seen for {{ $value | humanizeDuration }}",
            remedy="Run `manage.py taskkit relay`, or the task taskkit.relay from beat once a minute.",
            metrics=(RELAY_AGE,),
            severity="critical",
        ),
        Rule(
            name="TaskkitBeatGone",
            expr=f"min({BEAT_AGE.name}) > 90",
            lasts="1m",
            summary="Beat was not seen for {{ $value | humanizeDuration }}",
            remedy="Start `celery beat`; nothing that is scheduled runs without it.",
            metrics=(BEAT_AGE,),
            severity="critical",
        ),
        Rule(
            name="TaskkitSpoolNotEmpty",
            expr=f"sum by (place) ({SPOOL_ENTRIES.name}) > 0",
            lasts="5m",
            summary="{{ $value }} dead letters wait for the database ({{ $labels.place }})",
            remedy="See whether the database takes rows, and a relay runs; files wait for one on their machine.",
            metrics=(SPOOL_ENTRIES,),
        ),
        Rule(
            name="TaskkitBreakerOpen",
            expr=f"max by (dependency) ({BREAKER_OPEN.name}) > 0",
            lasts="5m",
            summary="The breaker of {{ $labels.dependency }} is open",
            remedy="{{ $labels.dependency }} is down for your tasks; they wait, and go on by themselves afterwards.",
            metrics=(BREAKER_OPEN,),
        ),
        Rule(
            name="TaskkitExporterWithoutAnswer",
            expr=f"min by (part) ({ANSWERED.name}) == 0",
            lasts="2m",
            summary="The exporter gets no answer about {{ $labels.part }}",
            remedy="Its log says why; other alerts about {{ $labels.part }} can't fire meanwhile.",
            metrics=(ANSWERED,),
        ),
        Rule(
            name="TaskkitExporterGone",
            expr=f"absent({ANSWERED.name})",
            lasts="5m",
            summary="Nobody asks for queues, outbox and dead letters",
            remedy="Run `manage.py taskkit metrics serve --port 9100`, and have Prometheus scrape it.",
            metrics=(ANSWERED, LANE_MESSAGES),
        ),
    )


def as_yaml(chosen: tuple[Rule, ...]) -> str:
    """Return a rule file."""
    group = {
        "name": "taskkit",
        "rules": [
            {
                "alert": rule.name,
                "expr": rule.expr,
                "for": rule.lasts,
                "labels": {"severity": rule.severity},
                "annotations": {"summary": rule.summary, "description": rule.remedy},
            }
            for rule in chosen
        ],
    }
    return "".join(f"{line}\n" for line in _lines({"groups": [group]}))


def _lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Yield a mapping of texts, mappings and lists of mappings as YAML; a text in JSON's quotes is one in YAML's."""
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(item, indent + "  ")
        elif isinstance(item, list):
            yield f"{indent}{key}:"
            for entry in item:
                first, *more = _lines(entry, indent + "    ")
                yield f"{indent}  - {first.lstrip()}"
                yield from more
        else:
            yield f"{indent}{key}: {json.dumps(item)}"
