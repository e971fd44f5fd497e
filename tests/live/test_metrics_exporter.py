"""What all workers share is shown by one exporter; and what the relay does to the time in the queue."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys

import harness
import letters_settings
import pytest
from scraping import (  # noqa: F401 (some are fixtures)
    environment_of_metrics,
    number_in,
    numbers_of_worker,
    scrape,
    serving,
    start_and_count,
)

from django_taskkit.models import OutboxMessage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_the_exporter_shows_what_all_workers_share(broker, producer, environment):
    """Messages of all priorities, and of those that wait for their time, none."""
    for priority in (0, 3, 6, 9, 9):
        producer.send_task("metrics.good", priority=priority)
    producer.send_task("metrics.bad", ("nowhere",), countdown=3600, outbox=True)
    port = harness.free_port()

    with serving(["metrics", "serve", f"--port={port}", f"--queue={broker.queue}"], broker, environment, port):
        page = scrape(port)

    assert number_in(page, "lane_messages", lane=broker.queue) == 5
    assert 0 < number_in(page, "lane_oldest_age_seconds", lane=broker.queue) < 600
    assert number_in(page, "lane_consumers", lane=broker.queue) == 0
    assert [number_in(page, "outbox_messages", state=state) for state in ("due", "later")] == [0, 1]
    assert number_in(page, "dead_letters") == 0
    assert number_in(page, "relay_last_seen_age_seconds") is None
    assert number_in(page, "exporter_answered") == 7


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_the_exporter_counts_the_workers_that_read_a_queue(broker, start, producer, environment):
    start(pool="solo")
    port = harness.free_port()

    with serving(["metrics", "serve", f"--port={port}", f"--queue={broker.queue}"], broker, environment, port):
        page = scrape(port)

    assert number_in(page, "lane_messages", lane=broker.queue) == 0
    assert number_in(page, "lane_consumers", lane=broker.queue) == 1


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_waited_in_the_outbox_is_in_the_queue_since_the_relay_has_sent_it(
    broker, start, producer, numbers, environment
):
    start(pool="threads")
    sent = producer.send_task("metrics.good", outbox=True)
    OutboxMessage.objects.update(headers={**OutboxMessage.objects.get().headers, "taskkit_sent_at": 1.0})
    port = harness.free_port()

    with serving(["relay"], broker, {**environment, "TASKKIT_METRICS_PORT": str(port)}, port):
        sent.get(timeout=60)

    harness.wait_until(lambda: numbers("tasks_succeeded_total") == 1, 30, "it is counted")
    assert numbers("task_queue_seconds_sum") < 600


@contextlib.contextmanager
def silent_server():
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_broker_and_a_database_that_are_silent_leave_the_page_in_time(broker, environment):
    """Asked one after the other they would take longer than anybody waits for a page."""
    with silent_server() as of_redis, silent_server() as of_postgresql:
        gone = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "127.0.0.1", "PORT": str(of_postgresql)}
        broker.settings["broker_url"] = f"redis://127.0.0.1:{of_redis}/0"
        port = harness.free_port()
        env = {**environment, letters_settings.DATABASE_VARIABLE: json.dumps(gone)}
        with serving(["metrics", "serve", f"--port={port}"], broker, env, port):
            page = scrape(port)

    answered = {
        part: number_in(page, "exporter_answered", part=part) for part in ("queues", "outbox", "dead_letters", "relay")
    }
    assert set(answered.values()) == {0}
    assert number_in(page, "exporter_answered", part="gates") == 1


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_of_processes_that_share_a_folder_the_exporter_shows_what_none_has_counted(broker, environment, tmp_path):
    counts = "from django_taskkit.observability.metrics import catalogue, prometheus as p; import os; "
    counts += "p.Prometheus().add(catalogue.SUCCEEDED, ('shop.add', 'fast')); os.write(1, p.exposition(p.shown()))"
    env = {**environment, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", counts], env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    port = harness.free_port()

    with serving(["metrics", "serve", f"--port={port}"], broker, env, port):
        page = scrape(port)

    assert number_in(done.stdout, "tasks_succeeded_total") == 1
    assert number_in(page, "tasks_succeeded_total") is None
    assert number_in(page, "exporter_answered", part="queues") == 1
