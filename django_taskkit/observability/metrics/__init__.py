"""Metrics of workers, web, beat and relay, for Prometheus and OpenTelemetry; see docs/metrics.md.

Nothing of it is loaded unless ``TASKKIT["METRICS"]`` names one of the two.
"""

from __future__ import annotations


def install() -> None:
    """Count from now on, in this process and in those that it forks; doing it twice changes nothing."""
    from django_taskkit.observability.metrics import counting, serving

    counting.install()
    serving.install()
