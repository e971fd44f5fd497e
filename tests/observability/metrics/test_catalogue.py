"""The list that all else is made from."""

import re

from django_taskkit.observability.metrics.catalogue import ASKED, BY_NAME, COUNTED, METRICS, Kind


def test_names_are_told_apart():
    assert len(BY_NAME) == len(METRICS) == len({metric.otel for metric in METRICS})


def test_names_follow_the_conventions_of_prometheus():
    for metric in METRICS:
        assert re.fullmatch(r"taskkit_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind is Kind.COUNTER), metric.name
        assert metric.name.endswith("_seconds") == (metric.unit == "s"), metric.name


def test_names_follow_the_conventions_of_opentelemetry():
    for metric in METRICS:
        assert re.fullmatch(r"taskkit(\.[a-z]+(_[a-z]+)*)+", metric.otel)
        assert not metric.otel.endswith(("total", "seconds")), metric.otel
        assert re.fullmatch(r"s|1|\{[a-z ]+\}", metric.unit)


def test_all_say_what_they_mean():
    for metric in METRICS:
        assert metric.help.endswith(".")
        assert "\n" not in metric.help


def test_each_is_counted_or_asked():
    assert set(COUNTED) | set(ASKED) == set(METRICS)
    assert all(metric.buckets == tuple(sorted(metric.buckets)) for metric in METRICS)
    assert all(bool(metric.buckets) == (metric.kind is Kind.HISTOGRAM) for metric in METRICS)
