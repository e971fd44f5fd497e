"""The whole story on real brokers and workers: retry with growing delays, death, requeue, recovery."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import harness
import pytest

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

POOLS = ("prefork", "threads", "solo", "gevent")


@pytest.fixture
def start(broker, producer, start_worker, django_env):
    """Start a worker on the database of this test."""
    return lambda env_more={}, **options: start_worker("letters_app", broker, env={**django_env, **env_more}, **options)


def letter(task_id, status):
    return DeadLetter.objects.filter(task_id=task_id, status=status).first()


def runs(folder):
    return [json.loads(line) for line in Path(folder, "runs.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("broker", harness.BROKERS, indirect=True)
def test_a_task_retries_dies_is_requeued_and_recovers(broker, start, producer, pool, tmp_path):
    start(pool=pool, concurrency=2)
    folders = {name: tmp_path / name for name in ("retrying", "plain")}
    for folder in folders.values():
        folder.mkdir()

    sent = {
        name: producer.send_task(f"letters.{name}", (str(folder),), headers={"tenant": "t1"}, priority=0)
        for name, folder in folders.items()
    }
    dead = {
        name: harness.wait_until(lambda name=name: letter(sent[name].id, "dead"), 60, f"{name} is dead")
        for name in sent
    }

    assert (dead["retrying"].reason, dead["retrying"].attempts) == ("retries_exhausted", 3)
    assert (dead["plain"].reason, dead["plain"].attempts) == ("exception", 1)
    for row in dead.values():
        assert row.queue == broker.queue
        assert row.headers["tenant"] == "t1"
        assert row.release == "live"
        assert "not cured" in row.traceback
    attempts = runs(folders["retrying"])
    assert [attempt["delay"] for attempt in attempts] == [0, 1, 2]
    for before, after in itertools.pairwise(attempts):
        # Brokers and workers may be late, never early; a second's fraction is lost where times are whole seconds.
        assert after["at"] - before["at"] > after["delay"] - 1

    for folder in folders.values():
        (folder / "cured").touch()
    report = requeue(DeadLetter.objects.all(), by="ann")

    assert (report.requeued, report.refused) == (2, ())
    for name in sent:
        recovered = harness.wait_until(lambda name=name: letter(sent[name].id, "recovered"), 60, f"{name} is recovered")
        assert [event.kind for event in recovered.events.all()] == ["died", "requeued", "recovered"]
        assert producer.AsyncResult(sent[name].id).get(timeout=30) == "done"
    assert runs(folders["retrying"])[-1]["retries"] == 0
    harness.wait_until(lambda: broker.message_count() == 0, 10, "the queue is empty")


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_the_letter_is_written_also_when_the_result_backend_is_down(broker, start, pool, tmp_path):
    """Celery calls no failure hook and no failure signal then."""
    start(pool=pool, settings={"result_backend": f"redis://127.0.0.1:{harness.free_port()}/0"})

    sent = broker.app(result_backend="disabled://").send_task("letters.plain", (str(tmp_path),))

    row = harness.wait_until(lambda: letter(sent.id, "dead"), 60, "dead")
    assert (row.exception_class, row.exception_message) == ("LookupError", "not cured")


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_requeue_that_dies_again_is_the_same_letter(broker, start, producer, tmp_path):
    start(pool="prefork")
    sent = producer.send_task("letters.plain", (str(tmp_path),))
    harness.wait_until(lambda: letter(sent.id, "dead"), 60, "dead")

    requeue(DeadLetter.objects.all())
    harness.wait_until(lambda: DeadLetter.objects.get().events.filter(kind="died").count() == 2, 60, "dead again")

    row = DeadLetter.objects.get()
    assert (row.status, row.requeue_count) == ("dead", 1)
    assert [event.kind for event in row.events.all()] == ["died", "requeued", "died"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_retry_that_can_not_be_published_and_has_no_outbox_goes_back(broker, start, producer, pool, tmp_path):
    """Celery rejects the message without requeueing, and it is gone. With an outbox it waits there: test_outbox.py."""
    if not shutil.which("redis-server"):
        harness.unavailable("there is no redis-server to stop and start")
    server = harness.RedisServer(durable=True).start()
    try:
        broker.settings.update(
            broker_url=server.url(),
            broker_transport_options={
                "visibility_timeout": 5,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            },
        )
        worker = start(pool=pool)
        # Without a result of its own: it would wait for the broker that goes away.
        task_id = broker.app(result_backend="disabled://").send_task("letters.interrupted", (str(tmp_path),)).id
        harness.wait_until(lambda: Path(tmp_path, "runs.jsonl").exists(), 30, "the task runs")

        server.kill()
        Path(tmp_path, "fail").touch()
        worker.wait_for_log("its retry could not be published", 60)
        server.start()
        if not worker.alive:  # Celery's prefork worker may crash when it rejects without a broker
            worker = start(pool=pool)

        def succeeded():
            return producer.AsyncResult(task_id).state == "SUCCESS"

        harness.wait_until(lambda: succeeded() or not worker.alive, 150, "the task succeeded or the worker ended")
        if not succeeded():
            start(pool=pool)
            harness.wait_until(succeeded, 150, "the task succeeded")
        assert [run["retries"] for run in runs(tmp_path)] == [0, 0]
        assert not DeadLetter.objects.exists()
    finally:
        server.close()


@pytest.mark.parametrize("broker", harness.BROKERS, indirect=True)
def test_letters_that_wait_for_their_time_do_not_hold_up_other_tasks(broker, start, producer, tmp_path):
    """On quorum queues a worker can't take more while it waits: there the broker has to hold them."""
    start(pool="threads", concurrency=1, settings={"worker_prefetch_multiplier": 1})
    waiting, other = tmp_path / "waiting", tmp_path / "other"
    waiting.mkdir()
    other.mkdir()
    for _ in range(3):
        producer.send_task("letters.plain", (str(waiting),))
    harness.wait_until(lambda: DeadLetter.objects.filter(status="dead").count() == 3, 60, "three are dead")
    (waiting / "cured").touch()
    (other / "cured").touch()

    requeue(DeadLetter.objects.all(), countdown=8)
    sent = producer.send_task("letters.plain", (str(other),))

    assert sent.get(timeout=60) == "done"
    assert DeadLetter.objects.filter(status="requeued").count() == 3
    harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").count() == 3, 60, "all are recovered")


@pytest.mark.parametrize("broker", ["rabbitmq", "rabbitmq-quorum"], indirect=True)
def test_a_requeue_to_a_queue_that_the_broker_lacks_is_refused(broker, start, producer, tmp_path):
    """Without confirms and the mandatory flag RabbitMQ takes the message and drops it."""
    worker = start(pool="solo")
    sent = producer.send_task("letters.plain", (str(tmp_path),))
    harness.wait_until(lambda: letter(sent.id, "dead"), 60, "dead")
    worker.stop()
    DeadLetter.objects.update(queue="gone", exchange="", routing_key="gone")

    [refusal] = requeue(DeadLetter.objects.all()).refused

    assert refusal.reason == "the broker has no queue for the routing key 'gone'"
    assert letter(sent.id, "dead")


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_worker_with_settings_that_make_no_sense_does_not_start(broker, start):
    with pytest.raises(AssertionError, match=r"TASKKIT\['CAPTRUE'\] is not a setting; did you mean 'CAPTURE'\?"):
        start(env_more={"TASKKIT_TEST_SETTING": "CAPTRUE"})
