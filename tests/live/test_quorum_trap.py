"""A delay below one second loses the task on RabbitMQ's quorum queues. Plain Celery, none of our package."""

from __future__ import annotations

import json
from pathlib import Path

import celery
import harness
import pytest

CELERY = tuple(int(number) for number in celery.__version__.split(".")[:2])

pytestmark = pytest.mark.parametrize("broker", ["rabbitmq-quorum"], indirect=True)


@pytest.fixture
def events(tmp_path: Path) -> Path:
    path = tmp_path / "events.jsonl"
    path.touch()
    return path


@pytest.fixture
def worker(broker: harness.Broker, start_worker, events: Path) -> harness.Worker:
    env = {"TASKKIT_TEST_EVENTS": str(events), "DJANGO_SETTINGS_MODULE": None}
    return start_worker("contract_app", broker, env=env)


def calls(events: Path, task_id: str) -> list[str]:
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    return [line["event"] for line in lines if line["task_id"] == task_id]


def test_a_retry_after_half_a_second_is_lost(broker, worker, events):
    app = broker.app()

    lost = app.send_task("contract.retry_once", (0.5,))
    worker.wait_for_log("reject requeue=False")
    kept = app.send_task("contract.retry_once", (1,))
    worker.wait_for_log(f"contract.retry_once[{kept.id}] succeeded")

    assert "countdown must be a positive number" in worker.log()
    assert calls(events, kept.id) == ["run", "task_retry", "run"]
    # Before 5.7 not even a failure is told; since then a `Reject`, and still no second run.
    assert calls(events, lost.id) == (["run"] if CELERY < (5, 7) else ["run", "task_failure"])
    assert lost.state == ("PENDING" if CELERY < (5, 7) else "FAILURE")
    worker.stop()
    assert broker.message_count() == 0


def test_a_call_with_a_delay_of_half_a_second_cannot_be_sent_at_all(broker):
    with pytest.raises(ValueError, match="countdown must be a positive number"):
        broker.app().send_task("contract.nothing", countdown=0.5)
