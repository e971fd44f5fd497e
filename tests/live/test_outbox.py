"""What the broker doesn't take waits in the outbox, and is sent when it does; on real brokers, with real outages."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import harness
import outbox_app
import pytest
from celery import chain, chord, group
from django.contrib.auth.models import Group
from django.db import transaction
from wire import Wire
from worker_processes import worker_environment

from django_taskkit.models import OutboxMessage
from django_taskkit.outbox.presence import watch
from django_taskkit.outbox.relay import Relay

pytestmark = pytest.mark.django_db(transaction=True)

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def fresh_watch():
    watch.forget()


@pytest.fixture
def on_server(server, broker):
    """Put the broker, and the results, on a Redis that the test may kill."""
    broker.settings.update(broker_url=server.url(), result_backend=server.url())
    return server


@pytest.fixture
def messages_on_server(server, broker):
    """Put the broker alone there."""
    broker.settings["broker_url"] = server.url()
    return server


@pytest.fixture
def wire(broker):
    """Put a wire between RabbitMQ and everything that this test starts afterwards."""
    direct = broker.settings["broker_url"]
    url = urlsplit(direct)
    wire = Wire(url.hostname, url.port or 5672)
    broker.settings["broker_url"] = url._replace(netloc=f"guest:guest@127.0.0.1:{wire.port}").geturl()
    yield wire
    broker.settings["broker_url"] = direct
    wire.cut()


@pytest.fixture
def start(start_worker, broker, django_env):
    return lambda **options: start_worker("outbox_app", broker, env=django_env, **options)


def signatures():
    return outbox_app.add.s, outbox_app.note.s


def relay_all(app):
    """Send all that waits; the relay is at first told that the broker was away."""
    relay = Relay(app, name="test")

    def empty():
        relay.run_once()
        return not OutboxMessage.objects.exists()

    harness.wait_until(empty, 60, "the outbox is empty", interval=0.5)


def test_with_the_broker_and_its_results_down_a_task_a_chain_and_a_group_are_kept_and_run_later(
    on_server, producer, start, tmp_path
):
    add, note = signatures()
    path = str(tmp_path / "runs")
    on_server.kill()

    started = time.monotonic()
    single = note(path).apply_async(headers={"tenant": "t1"}, priority=7, expires=3600, time_limit=30)
    first_took = time.monotonic() - started
    chained = chain(add(1, 2), add(4), add(8)).delay()
    grouped = group(add(number, number) for number in range(3)).delay()

    assert first_took < 10, "the publish retry policy takes less than a second"
    assert OutboxMessage.objects.count() == 5
    on_server.start()
    start(concurrency=2)
    relay_all(producer)

    assert single.get(timeout=60)["tenant"] == "t1"
    assert single.result["priority"] == 7
    assert single.result["timelimit"] == [30, None]
    assert single.result["expires"] != "None"
    assert chained.get(timeout=60) == 15
    assert grouped.get(timeout=60) == [0, 2, 4]
    assert Path(path).read_text().split() == [single.id]


@pytest.mark.parametrize("broker", [pytest.param("rabbitmq", marks=pytest.mark.soak), "rabbitmq-quorum"], indirect=True)
def test_with_rabbitmq_down_a_chord_and_a_delayed_task_are_kept_and_run_later(broker, wire, producer, start, tmp_path):
    add, note = signatures()
    path = tmp_path / "runs"
    start(concurrency=2)
    wire.cut()

    before = time.time()
    chorded = chord([add(1, 1), add(2, 2)], add()).delay()
    delayed = note(str(path)).apply_async(countdown=6)

    assert OutboxMessage.objects.filter(due_at=None).count() == 3
    wire.connect()
    relay_all(producer)
    assert chorded.get(timeout=60) == 6
    assert delayed.get(timeout=60)
    assert path.stat().st_mtime - before > 5.5


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_broker_that_goes_dead_without_a_word_holds_the_caller_for_a_bounded_time(
    broker, wire, producer, monkeypatch
):
    for module in ("hooks", "publishing"):
        monkeypatch.setattr(f"django_taskkit.outbox.{module}.ANSWER_TIMEOUT", 3)
    outbox_app.add.delay(1)  # a connection is there
    assert broker.message_count() == 1
    wire.go_dead()

    started = time.monotonic()
    outbox_app.add.delay(2)
    first = time.monotonic() - started
    started = time.monotonic()
    outbox_app.add.delay(3)
    second = time.monotonic() - started

    assert OutboxMessage.objects.count() == 2
    assert first < 30
    assert second < 5, "a broker that was out of reach a moment ago is not tried for each message"
    wire.cut()
    wire.connect()
    relay_all(producer)
    assert broker.message_count() == 3


def test_a_rollback_takes_the_message_along(on_server, producer):
    with transaction.atomic():
        outbox_app.add.apply_async((1,), outbox=True)
        assert OutboxMessage.objects.count() == 1
        transaction.set_rollback(True)

    assert not OutboxMessage.objects.exists()


def test_a_process_that_is_killed_between_commit_and_publishing_loses_nothing(
    on_server, broker, producer, django_env, tmp_path
):
    path = tmp_path / "runs"
    died = subprocess.run(
        [sys.executable, HERE / "outbox_app.py", path],
        env=worker_environment(broker.settings, django_env),
        cwd=harness.ROOT,
        check=False,
        timeout=60,
    )

    assert died.returncode == -signal.SIGKILL
    assert Group.objects.filter(name="paid").exists()
    row = OutboxMessage.objects.get()
    relay_all(producer)
    with broker.connection() as connection:
        message = producer.amqp.queues[broker.queue](connection.default_channel).get()
    assert (message.headers["id"], message.headers["task"]) == (row.task_id, "outbox.note")


def test_a_retry_survives_that_the_broker_is_away_when_it_is_published(messages_on_server, producer, start, tmp_path):
    worker = start()
    result = outbox_app.flaky.delay(str(tmp_path))
    harness.wait_until((tmp_path / "running").exists, 30, "the task runs")
    messages_on_server.kill()
    (tmp_path / "fail").touch()

    row = harness.wait_until(OutboxMessage.objects.first, 60, "the retry waits in the outbox")
    assert (row.task_id, row.headers["retries"]) == (result.id, 1)
    messages_on_server.start()
    relay_all(producer)
    harness.wait_until(lambda: result.ready() or not worker.alive, 90, "it ran, or its worker has ended")
    if not worker.alive:  # Celery's worker may, when it can't acknowledge a message; its supervisor starts another
        start()
    assert result.get(timeout=90) == 1


def test_the_relay_process_sends_says_how_it_goes_and_ends_on_sigterm(
    on_server, broker, producer, django_env, tmp_path
):
    health = tmp_path / "health.json"
    outbox_app.add.apply_async((1,), outbox=True)
    process = subprocess.Popen(
        [sys.executable, HERE / "outbox_manage.py", "taskkit", "relay", "--interval", "0.2", "--health-file", health],
        env=worker_environment(broker.settings, django_env),
        cwd=harness.ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:

        def state():
            return json.loads(health.read_text()) if health.exists() else {}

        harness.wait_until(lambda: state().get("published") == 1, 60, "one message was sent")
        on_server.kill()
        outbox_app.add.apply_async((2,), outbox=True)
        harness.wait_until(lambda: state()["errors"], 60, "the relay says that the broker is away")
        on_server.start()
        harness.wait_until(lambda: state()["published"] == 2, 60, "the second message was sent")
        process.terminate()
        output, _ = process.communicate(timeout=40)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "it sent 2 messages" in output
    assert state()["errors"] == []
    assert broker.message_count() == 2
