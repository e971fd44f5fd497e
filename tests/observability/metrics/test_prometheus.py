"""Prometheus' library: in one process, in many, and in those that are gone."""

import os
import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from django_taskkit.observability.metrics import catalogue, ended
from django_taskkit.observability.metrics.asked import Sample
from django_taskkit.observability.metrics.catalogue import ASKED, COUNTED, METRICS, Kind
from django_taskkit.observability.metrics.prometheus import Gauges, Prometheus, exposition
from tests.observability.metrics.promtool import promtool

PROCESS = """
import json, os, sys
from django_taskkit.observability.metrics import catalogue
from django_taskkit.observability.metrics.prometheus import Prometheus, exposition, shown

counts = Prometheus()
children = []
for number in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid:
        for _ in range(number + 1):
            counts.add(catalogue.SUCCEEDED, ("shop.add", "fast"))
            counts.observe(catalogue.RUN, ("shop.add",), 0.2)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
counts.add(catalogue.SUCCEEDED, ("shop.add", "fast"))
sys.stdout.buffer.write(exposition(shown()))
"""
"""A process that counts, and whose children have counted before."""


def values(text):
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


SUCCEEDED = ("taskkit_tasks_succeeded_total", ("lane", "fast"), ("task", "shop.add"))
RUNS = ("taskkit_task_run_seconds_count", ("task", "shop.add"))
FAST_RUNS = ("taskkit_task_run_seconds_bucket", ("le", "0.25"), ("task", "shop.add"))


@pytest.fixture
def many_processes(tmp_path):
    """Run ``PROCESS``, and return what it shows."""

    def run(children):
        env = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
        command = [sys.executable, "-c", PROCESS, str(children)]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout

    return run


def test_processes_that_were_forked_are_added_up_also_when_they_are_gone(many_processes):
    shown = values(many_processes(4))

    assert shown[SUCCEEDED] == 1 + 2 + 3 + 4 + 1
    assert shown[RUNS] == shown[FAST_RUNS] == 1 + 2 + 3 + 4


def test_what_processes_have_counted_that_are_gone_is_kept_in_one_file_of_each_kind(many_processes, tmp_path):
    before = values(many_processes(4))
    ended.keep(str(tmp_path))

    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["counter_ended.db", "histogram_ended.db"]
    ended.keep(str(tmp_path))
    again = values(many_processes(1))
    assert again[SUCCEEDED] == before[SUCCEEDED] + 2
    assert again[RUNS] == before[RUNS] + 1
    assert again[FAST_RUNS] == before[FAST_RUNS] + 1


@pytest.mark.parametrize("left", [b"", b"\x10", b"\xff\x00\x00\x00" * 16], ids=["empty", "short", "broken"])
def test_the_file_of_a_process_that_was_killed_while_it_made_it_does_not_end_scraping(
    many_processes, tmp_path, caplog, left
):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = tmp_path / f"counter_{gone.pid}.db"
    path.write_bytes(left)

    ended.keep(str(tmp_path))

    assert not path.exists()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert values(many_processes(1))[SUCCEEDED] == 2


def test_the_file_of_a_process_that_lives_is_left_to_it(tmp_path):
    path = tmp_path / f"counter_{os.getpid()}.db"
    path.touch()
    other = tmp_path / "note_1.db"
    other.touch()

    ended.keep(str(tmp_path))

    assert path.exists()
    assert other.exists()


def everything():
    """A registry in which each metric of the catalogue has a number."""
    registry = CollectorRegistry()
    counts = Prometheus(registry)
    for metric in COUNTED:
        labels = tuple(f"a {label}" for label in metric.labels)
        if metric.kind is Kind.HISTOGRAM:
            counts.observe(metric, labels, 1.5)
        else:
            counts.add(metric, labels)
    registry.register(Gauges(lambda: [Sample(metric, tuple("x" for _ in metric.labels), 2.0) for metric in ASKED]))
    return registry


def test_promtool_has_nothing_to_say_about_what_is_shown():
    code, said = promtool("check", "metrics", text=exposition(everything()).decode())

    assert (code, said) == (0, "")


def test_promtool_has_nothing_to_say_about_what_many_processes_show(many_processes):
    code, said = promtool("check", "metrics", text=many_processes(2))

    assert (code, said) == (0, "")


def test_every_metric_is_shown_by_its_name():
    shown = {family.name: family for family in text_string_to_metric_families(exposition(everything()).decode())}

    for metric in METRICS:
        family = shown[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind.value, metric.help)


def test_a_label_that_somebody_else_has_written_does_not_break_the_page():
    registry = CollectorRegistry()
    Prometheus(registry).add(catalogue.BREAKER_CHANGES, ('a"b\nc\\d', "open"))

    ((name, dependency, _state),) = [
        key for key in values(exposition(registry).decode()) if key[0] == "taskkit_breaker_changes_total"
    ]
    assert (name, dependency) == ("taskkit_breaker_changes_total", ("dependency", 'a"b\nc\\d'))


def test_gauges_without_a_number_are_not_shown():
    registry = CollectorRegistry()
    registry.register(Gauges(list))

    assert exposition(registry) == b""
