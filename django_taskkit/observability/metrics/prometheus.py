"""Prometheus: counting by ``prometheus_client``, in one process or in many.

With ``PROMETHEUS_MULTIPROC_DIR`` each process counts in files of its own there, which outlive it; whoever is scraped
adds them up. A worker has such a folder anyway (:mod:`serving`), for the processes of its pool.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.observability.metrics.catalogue import ASKED, COUNTED, Kind, Metric

if TYPE_CHECKING:
    from django_taskkit.observability.metrics.asked import Sample

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class Prometheus:
    """Counts in ``registry``: by default the one that every exporter of ``prometheus_client`` shows."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._registry = registry = registry or prometheus_client.REGISTRY
        self._metrics = {metric.name: _made(metric, registry) for metric in COUNTED}
        self._series: dict[tuple[str, tuple[str, ...]], Any] = {}
        """Looking one up here is half the cost of ``labels()``."""

    def add(self, metric: Metric, labels: tuple[str, ...]) -> None:
        self._of(metric, labels).inc()

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._of(metric, labels).observe(value)

    def close(self) -> None:
        for metric in self._metrics.values():
            self._registry.unregister(metric)

    def _of(self, metric: Metric, labels: tuple[str, ...]) -> Any:
        key = metric.name, labels
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._metrics[metric.name].labels(*labels)
        return series


class Gauges:
    """Collects what ``samples`` returns, anew for each scrape."""

    def __init__(self, samples: Callable[[], Iterable[Sample]]) -> None:
        self._samples = samples

    def collect(self) -> Iterable[GaugeMetricFamily]:
        families = {metric.name: GaugeMetricFamily(metric.name, metric.help, labels=metric.labels) for metric in ASKED}
        for sample in self._samples():
            families[sample.metric.name].add_metric(sample.labels, sample.value)
        return [family for family in families.values() if family.samples]


def shown() -> CollectorRegistry:
    """Return what a scrape of this process shows: all processes that share its folder, or it alone.

    Raises:
        ConfigurationError: there is no such folder.
    """
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return prometheus_client.REGISTRY
    if not os.path.isdir(folder):
        raise ConfigurationError(
            f"{FOLDER_VARIABLE} is {folder!r}, and there is no such folder: make it before the start"
        )
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """Return what a scrape gets, in Prometheus' text format."""
    return prometheus_client.generate_latest(registry)


def _made(metric: Metric, registry: CollectorRegistry) -> Any:
    if metric.kind is Kind.HISTOGRAM:
        return prometheus_client.Histogram(
            metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=registry
        )
    return prometheus_client.Counter(metric.name, metric.help, metric.labels, registry=registry)
