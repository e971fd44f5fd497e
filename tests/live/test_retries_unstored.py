"""The result backend is down when a task retries: the retry is on its way, so the task is no dead letter."""

from __future__ import annotations

from pathlib import Path

import harness
import pytest
import retries_app
from django.utils import timezone

from django_taskkit.models import DeadLetter, OutboxMessage, RelayHeartbeat

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = [f"{kind}{suffix}" for kind in ("plain", "letter", "own") for suffix in ("", "_late")]


@pytest.fixture
def run(broker, producer, start_worker, django_env, tmp_path):
    """Run each kind of task on a worker whose result backend is away; returns what ran, in any order."""

    def run(pool, countdown, wanted):
        nothing_waited = {"max_retries": 0, "interval_start": 0, "interval_step": 0, "interval_max": 0}
        start_worker(
            "retries_app",
            broker,
            pool=pool,
            concurrency=1,
            env=django_env,
            settings={
                "result_backend": f"redis://127.0.0.1:{harness.free_port()}/0",
                "result_backend_transport_options": {"retry_policy": nothing_waited},
                "worker_prefetch_multiplier": 1,
            },
        )
        sender = broker.app(result_backend="disabled://")
        for kind in KINDS:
            sender.send_task(f"retries.{kind}", (str(tmp_path), countdown))
        path = Path(tmp_path, "runs")

        def lines():
            return path.read_text().splitlines() if path.exists() else []

        harness.wait_until(lambda: len(lines()) >= wanted, 120, "each has run")
        sender.send_task("retries.end", (str(tmp_path),))
        harness.wait_until(lambda: "end" in lines(), 60, "the worker goes on")
        return sorted(line for line in lines() if line != "end")

    return run


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_retry_that_waits_in_the_outbox(run, broker, pool):
    RelayHeartbeat.objects.create(name="other", started_at=timezone.now(), seen_at=timezone.now())

    ran = run(pool, retries_app.LATE, len(KINDS))

    assert ran == sorted(f"retries.{kind} 0" for kind in KINDS)
    assert OutboxMessage.objects.count() == len(KINDS)
    assert not DeadLetter.objects.exists()
    harness.wait_until(lambda: broker.message_count() + broker.unacknowledged_count() == 0, 10, "nothing is left")


def test_a_retry_that_the_broker_has(run, broker):
    """It succeeds in the end, and that can't be stored either: then its body ran."""
    ran = run("prefork", retries_app.SOON, 2 * len(KINDS))

    assert ran == sorted(f"retries.{kind} {retries}" for kind in KINDS for retries in (0, 1))
    harness.wait_until(lambda: DeadLetter.objects.count() == len(KINDS), 30, "each success is in the table")
    assert set(DeadLetter.objects.values_list("reason", "attempts")) == {("result_lost", 2)}
