"""Scrape what a process of ours serves to Prometheus."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import harness
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
