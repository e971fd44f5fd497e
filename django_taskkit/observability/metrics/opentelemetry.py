"""OpenTelemetry: counting by its API; where the numbers go is the business of the SDK that the project has set up.

Instruments that were made before there was a provider go over to it when it is set. So a provider that the project sets
up in the processes of the pool, when they start, is the one that is used there, whatever was counted before the fork.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics

from django_taskkit import __version__
from django_taskkit.observability.metrics.catalogue import ASKED, Kind, Metric

if TYPE_CHECKING:
    from django_taskkit.observability.metrics.asked import Sample

SCOPE = "django_taskkit"


class OpenTelemetry:
    """Counts with the meter of the project's provider."""

    def __init__(self, provider: metrics.MeterProvider | None = None) -> None:
        self._provider = provider
        self._instruments: dict[str, Any] = {}

    def add(self, metric: Metric, labels: tuple[str, ...]) -> None:
        self._of(metric).add(1, dict(zip(metric.labels, labels, strict=True)))

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self._of(metric).record(value, dict(zip(metric.labels, labels, strict=True)))

    def close(self) -> None:
        self._instruments = {}

    def _of(self, metric: Metric) -> Any:
        instrument = self._instruments.get(metric.name)
        if instrument is None:
            instrument = self._instruments[metric.name] = self._made(metric)
        return instrument

    def _made(self, metric: Metric) -> Any:
        meter = meter_of(self._provider)
        if metric.kind is Kind.HISTOGRAM:
            return meter.create_histogram(
                metric.otel,
                unit=metric.unit,
                description=metric.help,
                explicit_bucket_boundaries_advisory=list(metric.buckets),
            )
        return meter.create_counter(metric.otel, unit=metric.unit, description=metric.help)


def observe_gauges(samples: Callable[[], Iterable[Sample]], provider: metrics.MeterProvider | None = None) -> None:
    """Have the project's provider ask for ``samples`` whenever it exports."""
    meter = meter_of(provider)
    for metric in ASKED:
        meter.create_observable_gauge(
            metric.otel, callbacks=[_observing(metric, samples)], unit=metric.unit, description=metric.help
        )


def _observing(metric: Metric, samples: Callable[[], Iterable[Sample]]) -> Callable[[Any], list[metrics.Observation]]:
    def observe(_options: Any) -> list[metrics.Observation]:
        return [
            metrics.Observation(sample.value, dict(zip(metric.labels, sample.labels, strict=True)))
            for sample in samples()
            if sample.metric is metric
        ]

    return observe


def meter_of(provider: metrics.MeterProvider | None = None) -> metrics.Meter:
    """Return the meter of ``provider``, by default of the project's."""
    return metrics.get_meter(SCOPE, __version__, provider)
