"""Tasks die while the database is down: their dead letters wait elsewhere, and are the same in the end."""

from __future__ import annotations

import json
import shutil

import harness
import letters_settings
import pytest
from database_outage import losable
from django.db import connection

from django_taskkit.dlq import requeue, spool, spool_files
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

SAME = (
    *("task_name", "reason", "exception_class", "exception_message", "traceback", "fingerprint", "attempts"),
    *("queue", "exchange", "routing_key", "worker", "release", "body", "content_type", "content_encoding"),
)


@pytest.fixture
def database(django_env):
    database = losable(json.loads(django_env[letters_settings.DATABASE_VARIABLE]))
    yield database
    database.close()


@pytest.fixture
def taskkit(settings, tmp_path, broker):
    """The same ``TASKKIT`` for the test, which is the relay, and for its workers, but for the release."""
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / "spool"), "SPOOL_QUEUE": broker.queue_named("spool")}
    return settings.TASKKIT


@pytest.fixture
def start(start_worker, django_env, database, taskkit, broker):
    env = {
        **django_env,
        "DJANGO_SETTINGS_MODULE": "spool_settings",
        letters_settings.DATABASE_VARIABLE: json.dumps(database.settings, default=str),
        "TASKKIT_TEST_TASKKIT": json.dumps({**taskkit, "RELEASE": "1.0"}),
        "TASKKIT_TEST_WRITE_TIMEOUT": "5",
    }
    return lambda **options: start_worker("spool_app", broker, env=env, **options)


def rows():
    return {row.task_id: {name: getattr(row, name) for name in SAME} for row in DeadLetter.objects.all()}


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.mark.parametrize(
    ("broker", "pool"),
    [
        ("redis", "threads"),
        ("rabbitmq-quorum", "prefork"),
        ("filesystem", "prefork"),
        soak("redis", "prefork"),
        soak("rabbitmq", "prefork"),
        soak("rabbitmq", "threads"),
        soak("rabbitmq-quorum", "threads"),
        soak("filesystem", "threads"),
    ],
    indirect=["broker"],
)
def test_they_wait_in_a_queue_of_the_broker(broker, start, producer, database, pool, tmp_path):
    start(pool=pool, concurrency=2)
    send = lambda: producer.send_task("letters.plain", (str(tmp_path),), headers={"tenant": "t1"}).id  # noqa: E731
    direct = send()
    harness.wait_until(lambda: direct in rows(), 60, "the first is in the table")
    expected = rows()[direct]

    database.down()
    sent = [send() for _ in range(4)]
    harness.wait_until(lambda: spool.waiting(producer) == (0, 4), 120, "all are spooled", interval=0.5)
    database.up()
    assert spool.drain(producer, 100) == 4

    assert spool.waiting(producer) == (0, 0)
    for task_id in sent:
        assert rows()[task_id] == expected
        letter = DeadLetter.objects.get(task_id=task_id)
        assert letter.headers["tenant"] == "t1"
        assert [event.kind for event in letter.events.all()] == ["died"]
    assert expected["release"] == "1.0"

    (tmp_path / "cured").touch()
    assert requeue(DeadLetter.objects.all()).refused == ()

    # Until the pause after the outage is over, that a task recovered is spooled as well.
    def all_recovered():
        spool.drain(producer, 100)
        return DeadLetter.objects.filter(status="recovered").count() == 5

    harness.wait_until(all_recovered, 60, "all are recovered", interval=0.5)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_without_the_broker_they_wait_in_files_and_the_worker_brings_them_in(
    broker, start, producer, database, tmp_path
):
    if not shutil.which("redis-server"):
        harness.unavailable("there is no redis-server to stop and start")
    server = harness.RedisServer(durable=True).start()
    try:
        broker.settings.update(broker_url=server.url(), result_backend="disabled://")
        worker = start(pool="prefork", concurrency=1)
        app = broker.app()
        sent = [app.send_task("spool.fails_when_told", (str(tmp_path),)).id]
        harness.wait_until(lambda: (tmp_path / "runs.jsonl").exists(), 30, "the task runs")

        database.down()
        server.kill()
        (tmp_path / "fail").touch()
        harness.wait_until(lambda: len(spool_files.names()) == 1, 90, "a file is there")
        server.start()
        database.up()
        if not worker.alive:  # Celery's worker may crash when it loses Redis
            start(pool="prefork", concurrency=1)

        # Until the pause after the outage is over, deaths are spooled without a try.
        def brought_in():
            sent.append(app.send_task("letters.plain", (str(tmp_path),)).id)
            return sent[0] in rows()

        harness.wait_until(brought_in, 90, "the worker brought it in", interval=1)
        assert rows()[sent[0]]["exception_message"] == "told to"

        def all_are_in():
            spool.drain(app, 100)
            return rows().keys() == set(sent)

        harness.wait_until(all_are_in, 60, "all are in the table", interval=0.5)
    finally:
        server.close()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_database_that_falls_silent_holds_no_worker_for_ever(broker, start, producer, database, tmp_path):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite is a file, which does not fall silent")
    start(pool="prefork", concurrency=1)
    first = producer.send_task("letters.plain", (str(tmp_path),)).id
    harness.wait_until(lambda: first in rows(), 60, "the first is in the table")

    database.fall_silent()
    sent = producer.send_task("letters.plain", (str(tmp_path),)).id
    # Two, if the silence began before the worker heard that the first row was committed.
    harness.wait_until(lambda: spool.waiting(producer) in [(0, 1), (0, 2)], 90, "it is spooled", interval=0.5)
    database.up()

    def brought_in():
        spool.drain(producer, 10)
        return sent in rows()

    harness.wait_until(brought_in, 30, "it is in the table", interval=0.5)
    assert rows()[sent] == rows()[first]
    for letter in DeadLetter.objects.all():
        assert [event.kind for event in letter.events.all()] == ["died"]


@pytest.mark.parametrize("broker", ["rabbitmq-quorum"], indirect=True)
def test_the_relay_makes_the_queue_while_all_is_well(broker, producer, taskkit):
    assert spool.drain(producer, limit=10) == 0

    with broker.connection() as connection:
        declared = connection.default_channel.queue_declare(taskkit["SPOOL_QUEUE"], passive=True)
    assert declared.message_count == 0
