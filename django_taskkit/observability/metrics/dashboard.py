"""A dashboard for Grafana, made from the catalogue: every metric has a place on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django_taskkit.observability.metrics import catalogue
from django_taskkit.observability.metrics.catalogue import Kind, Metric

RATE = "[$__rate_interval]"
WIDTH, HEIGHT = 8, 8
COLUMNS = 24 // WIDTH

ROWS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Is anything wrong?",
        (
            *(catalogue.DEAD_LETTERED, catalogue.DEAD_LETTERS, catalogue.LANE_OLDEST, catalogue.RELAY_AGE),
            *(catalogue.BEAT_AGE, catalogue.ANSWERED),
        ),
    ),
    (
        "Tasks",
        (
            *(catalogue.SENT, catalogue.STARTED, catalogue.SUCCEEDED, catalogue.RETRIED, catalogue.REDELIVERED),
            *(catalogue.IGNORED, catalogue.RUN),
        ),
    ),
    ("Lanes", (catalogue.LANE_MESSAGES, catalogue.LANE_CONSUMERS, catalogue.IN_QUEUE)),
    ("Dead letters put back", (catalogue.REQUEUED, catalogue.RECOVERED, catalogue.DISCARDED)),
    ("Outbox and spool", (catalogue.OUTBOX_MESSAGES, catalogue.OUTBOX_OLDEST, catalogue.SPOOL_ENTRIES)),
    ("What tasks depend on", (catalogue.BREAKER_OPEN, catalogue.BREAKER_CHANGES, catalogue.BUDGET)),
)

_UNITS = {"s": "s", "1": "percentunit"}


@dataclass(frozen=True)
class Query:
    """What a panel draws, as PromQL, and what it calls each line."""

    expr: str
    legend: str


def queries(metric: Metric) -> tuple[Query, ...]:
    """Return what is drawn of ``metric``: counters per second, histograms by quantile, gauges as they are."""
    by = ", ".join(metric.labels)
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels)
    if metric.kind is Kind.COUNTER:
        return (Query(f"sum by ({by}) (rate({metric.name}{RATE}))", legend),)
    if metric.kind is Kind.HISTOGRAM:
        buckets = f"sum by ({by}, le) (rate({metric.name}_bucket{RATE}))"
        return tuple(
            Query(f"histogram_quantile({quantile}, {buckets})", f"p{round(quantile * 100)} {legend}")
            for quantile in (0.5, 0.95)
        )
    # Several exporters say the same of what they share; adding that up would double it.
    return (Query(f"max by ({by}) ({metric.name})" if by else f"max({metric.name})", legend or "now"),)


def dashboard() -> dict[str, Any]:
    """Return the dashboard, as Grafana imports it; it asks which Prometheus it is to use."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, metrics in ROWS:
        panels.append(_row(title, top, len(panels) + 1))
        top += 1
        for place, metric in enumerate(metrics):
            at = {"x": place % COLUMNS * WIDTH, "y": top + place // COLUMNS * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(_panel(metric, at, len(panels) + 1))
        top += (len(metrics) + COLUMNS - 1) // COLUMNS * HEIGHT
    return {
        "title": "django-taskkit",
        "uid": "django-taskkit",
        "tags": ["celery", "django", "taskkit"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "datasource", "type": "datasource", "query": "prometheus"}]},
        "panels": panels,
    }


def title_of(metric: Metric) -> str:
    """Return the metric's name for people: ``tasks sent``."""
    name = metric.name.removeprefix("taskkit_").removesuffix("_total").removesuffix("_seconds").replace("_", " ")
    return f"{name} per second" if metric.kind is Kind.COUNTER else name


def _row(title: str, top: int, number: int) -> dict[str, Any]:
    at = {"x": 0, "y": top, "w": 24, "h": 1}
    return {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": at, "panels": []}


def _panel(metric: Metric, at: dict[str, int], number: int) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    unit = "ops" if metric.kind is Kind.COUNTER else _UNITS.get(metric.unit, "short")
    return {
        "id": number,
        "type": "timeseries",
        "title": title_of(metric),
        "description": metric.help,
        "datasource": source,
        "gridPos": at,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": source, "expr": query.expr, "legendFormat": query.legend}
            for place, query in enumerate(queries(metric))
        ],
    }
