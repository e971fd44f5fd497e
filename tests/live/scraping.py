"""Scrape what a process of ours serves to Prometheus; the fixtures of the tests that do so."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import harness
import pytest
from prometheus_client.parser import text_string_to_metric_families
from worker_processes import worker_environment

HERE = Path(__file__).resolve().parent


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return answer.read().decode()


def number_in(page, name, **labels):
    found = [
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == f"taskkit_{name}" and labels.items() <= sample.labels.items()
    ]
    return sum(found) if found else None


@pytest.fixture(name="environment")
def environment_of_metrics(django_env):
    """What a process needs to count, and to be scraped at a port of its own."""
    return {
        **django_env,
        "DJANGO_SETTINGS_MODULE": "metrics_settings",
        "TASKKIT_METRICS_PORT": str(harness.free_port()),
    }


@pytest.fixture(name="start")
def start_and_count(start_worker, broker, environment):
    return lambda **options: start_worker("metrics_app", broker, env=environment, **options)


@pytest.fixture(name="numbers")
def numbers_of_worker(environment):
    """``numbers("tasks_sent_total", task="metrics.good")``: the sum of the series that have these labels."""
    return lambda name, **labels: number_in(scrape(environment["TASKKIT_METRICS_PORT"]), name, **labels)


@contextlib.contextmanager
def serving(verb, broker, environment, port):
    """``manage.py taskkit VERB`` of the project, once it can be scraped at ``port``."""
    command = [sys.executable, "metrics_app.py", "taskkit", *verb]
    process = subprocess.Popen(command, cwd=HERE, env=worker_environment(broker.settings, environment))

    def answers():
        assert process.poll() is None, f"it ended with {process.returncode}"
        try:
            scrape(port)
        except urllib.error.URLError:
            return False
        return True

    try:
        harness.wait_until(answers, 60, "it can be scraped")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
