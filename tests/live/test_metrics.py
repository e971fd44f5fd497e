"""What is scraped adds up to what was sent; on real brokers, in real workers, with processes that are killed."""

from __future__ import annotations

import os
from pathlib import Path

import harness
import pytest
from scraping import (  # noqa: F401 (some are fixtures)
    environment_of_metrics,
    number_in,
    numbers_of_worker,
    scrape,
    start_and_count,
)

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

POOLS = [("redis", "prefork"), ("rabbitmq", "prefork"), ("redis", "threads"), ("rabbitmq", "gevent")]
ENDS = ("tasks_succeeded_total", "tasks_ignored_total", "tasks_dead_lettered_total")


def ended(numbers):
    """How many have come to their end."""
    return sum(numbers(name) or 0 for name in ENDS)


@pytest.mark.parametrize(("broker", "pool"), POOLS, indirect=["broker"])
def test_everything_that_was_sent_is_counted_once(broker, start, producer, numbers, pool, tmp_path):
    kills = pool == "prefork"
    start(pool=pool, concurrency=2)
    folder = str(tmp_path)
    calls = [("good", ())] * 5 + [("flaky", (1,))] * 2 + [("bad", (folder,))] * 3 + [("ignored", ())]
    calls += [("killed", ()), ("killed_once", (folder,))] if kills else []
    for name, arguments in calls:
        producer.send_task(f"metrics.{name}", arguments)

    harness.wait_until(lambda: ended(numbers) == len(calls), 60, "all have ended")

    assert numbers("tasks_succeeded_total") == 5 + 2 + kills
    assert numbers("tasks_retried_total", task="metrics.flaky") == 2
    assert numbers("tasks_dead_lettered_total", task="metrics.bad", reason="exception") == 3
    assert numbers("tasks_dead_lettered_total", reason="worker_lost") == (1 if kills else None)
    assert numbers("tasks_ignored_total") == 1
    assert numbers("tasks_redelivered_total", task="metrics.killed_once") == (1 if kills else None)
    runs = 5 + (2 + 2) + 3 + 1 + (1 + 2 if kills else 0)
    assert numbers("tasks_started_total") == runs
    assert numbers("task_queue_seconds_count") == runs
    assert numbers("task_run_seconds_count") == runs - (2 if kills else 0)
    assert numbers("tasks_started_total", lane=broker.queue) == runs

    (tmp_path / "cured").touch()
    requeue(DeadLetter.objects.filter(task_name="metrics.bad"))
    harness.wait_until(lambda: numbers("tasks_recovered_total") == 3, 60, "they recover")

    assert numbers("tasks_succeeded_total", task="metrics.bad") == 3
    assert numbers("tasks_started_total") == runs + 3
    assert numbers("tasks_dead_lettered_total", task="metrics.bad") == 3


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_processes_have_counted_that_were_replaced_is_kept(broker, start, producer, numbers, environment):
    worker = start(pool="prefork", concurrency=2, arguments=["--max-tasks-per-child=2"])
    results = [producer.send_task("metrics.good") for _ in range(15)]

    pids = {result.get(timeout=60) for result in results}
    harness.wait_until(lambda: numbers("tasks_succeeded_total") == 15, 30, "all are counted")

    assert len(pids) >= 7
    assert numbers("tasks_started_total") == numbers("task_run_seconds_count") == 15
    (folder,) = folders_of(worker.children()[0])
    wanted = {str(worker.pid), "ended", *map(str, worker.children())}
    port = environment["TASKKIT_METRICS_PORT"]
    harness.wait_until(lambda: scrape(port) and pids_in(folder) <= wanted, 30, "few files are left")
    worker.stop()
    assert not folder.exists()


def folders_of(pid):
    """Where a process counts, by the files that it has open."""
    opened = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
    return {Path(path).parent for path in opened if "taskkit-metrics-" in path}


def pids_in(folder):
    return {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
