"""What all workers share is shown by one exporter; and what the relay does to the time in the queue."""

from __future__ import annotations

import harness
import pytest
from scraping import number_in, scrape, serving

from django_taskkit.models import OutboxMessage

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def environment(django_env):
    """What a process needs to count, and to be scraped at a port of its own."""
    return {
        **django_env,
        "DJANGO_SETTINGS_MODULE": "metrics_settings",
        "TASKKIT_METRICS_PORT": str(harness.free_port()),
    }


@pytest.fixture
def start(start_worker, broker, environment):
    return lambda **options: start_worker("metrics_app", broker, env=environment, **options)


@pytest.fixture
def numbers(environment):
    """``numbers("tasks_sent_total", task="metrics.good")``: the sum of the series that have these labels."""
    return lambda name, **labels: number_in(scrape(environment["TASKKIT_METRICS_PORT"]), name, **labels)


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
