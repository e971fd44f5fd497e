"""OpenTelemetry: the same numbers by its API, read back with its SDK."""

import subprocess
import sys

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from django_taskkit.observability.metrics import catalogue, counting
from django_taskkit.observability.metrics.asked import Sample
from django_taskkit.observability.metrics.catalogue import ASKED, COUNTED, METRICS, Kind
from django_taskkit.observability.metrics.opentelemetry import OpenTelemetry, observe_gauges
from django_taskkit.observability.metrics.prometheus import exposition


@pytest.fixture
def reader():
    return InMemoryMetricReader()


@pytest.fixture
def provider(reader):
    provider = MeterProvider([reader])
    yield provider
    provider.shutdown()


def read(reader):
    data = reader.get_metrics_data()
    scopes = [scope for of in data.resource_metrics for scope in of.scope_metrics] if data else []
    return {metric.name: metric for scope in scopes for metric in scope.metrics}


@pytest.mark.django_db
def test_a_task_is_counted(station, counted, provider, reader):
    @station.app.task(name="shop.add")
    def add(*numbers):
        return sum(numbers)

    counting.use(OpenTelemetry(provider))
    add.delay(1, 2)
    station.run_next()

    found = read(reader)
    (point,) = found["taskkit.tasks.succeeded"].data.data_points
    assert (point.value, dict(point.attributes)) == (1, {"task": "shop.add", "lane": station.queue})
    (runs,) = found["taskkit.task.run"].data.data_points
    assert (runs.count, runs.explicit_bounds) == (1, catalogue.TIMES)
    assert found["taskkit.task.run"].unit == "s"


def everything(provider):
    counts = OpenTelemetry(provider)
    for metric in COUNTED:
        labels = tuple("x" for _ in metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            counts.observe(metric, labels, 1.5)
        else:
            counts.add(metric, labels)
    observe_gauges(lambda: [Sample(metric, tuple("x" for _ in metric.labels), 2.0) for metric in ASKED], provider)


def test_every_metric_of_the_catalogue_is_there(provider, reader):
    everything(provider)

    found = read(reader)
    assert found.keys() == {metric.otel for metric in METRICS}
    for metric in METRICS:
        assert (found[metric.otel].unit, found[metric.otel].description) == (metric.unit, metric.help)


def test_its_exporter_for_prometheus_shows_the_names_that_rules_and_dashboard_know():
    reader = PrometheusMetricReader(disable_target_info=True)
    provider = MeterProvider([reader])
    try:
        everything(provider)
        shown = {family.name for family in text_string_to_metric_families(exposition(REGISTRY).decode())}
    finally:
        provider.shutdown()

    assert {metric.name.removesuffix("_total") for metric in METRICS} <= shown


FORKED = """
import os
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from django_taskkit.observability.metrics import catalogue
from django_taskkit.observability.metrics.opentelemetry import OpenTelemetry

counts = OpenTelemetry()
counts.add(catalogue.SENT, ("a", "b"))  # before there is a provider
read, write = os.pipe()
if not os.fork():
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    counts.add(catalogue.SENT, ("a", "b"))
    data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics[0].data.data_points
    os.write(write, str(sum(point.value for point in data)).encode())
    os._exit(0)
os.wait()
print(os.read(read, 10).decode())
"""


def test_a_process_of_the_pool_counts_for_the_provider_that_is_set_up_in_it():
    done = subprocess.run([sys.executable, "-c", FORKED], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "1"
