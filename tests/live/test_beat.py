"""Two real beats on one broker: what is due is sent once, whatever becomes of one of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from collections import Counter
from itertools import pairwise
from pathlib import Path

import beat_app
import harness
import pytest
from django.db import connection
from servers import PostgreSQLServer
from worker_processes import worker_environment

from django_taskkit.beat import state

pytestmark = pytest.mark.django_db(transaction=True)

DATABASE_SCHEDULER = "django_celery_beat.schedulers:DatabaseScheduler"
WITH_ITS_TABLES = {"TASKKIT_TEST_APPS": json.dumps(["django_celery_beat"]), "TASKKIT_TEST_INTERVALS": "1"}
ELSEWHERE = {"TASKKIT_TEST_OTHER_MACHINE": "1"}
"""As if the other beat were on another machine, where nobody sees that its process is gone."""


class Beat:
    """``celery beat`` with a schedule file of its own, in a process group of its own."""

    def __init__(self, broker, folder, env, *arguments, command="beat"):
        name = uuid.uuid4().hex[:8]
        self.log_path = Path(folder, f"beat-{name}.log")
        program = [sys.executable, "-m", "celery", "-A", "beat_app", command, "--loglevel=INFO"]
        self.command = [*program, f"--schedule={Path(folder, name)}", *arguments]
        self.env = worker_environment(broker.settings, env)

    def start(self):
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=harness.ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        return self

    def send(self, number):
        os.kill(self.process.pid, number)

    def end(self, number):
        self.send(number)
        self.process.wait(30)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def says(self, text, times=1):
        harness.wait_until(lambda: self.log().count(text) >= times, 60, f"{text!r} in:\n{self.log()}")

    def sent(self):
        return self.log().count("Sending due task")

    def goes_on(self, runs=2):
        before = self.sent()
        try:
            harness.wait_until(lambda: self.sent() >= before + runs, 60, "it sends")
        except AssertionError:
            raise AssertionError(f"it does not send:\n{self.log()}") from None

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


@pytest.fixture
def start_beat(broker, tmp_path, django_env):
    started = []

    def start(*arguments, env=None, **options):
        given = {**django_env, "DJANGO_SETTINGS_MODULE": "beat_settings", "TASKKIT_TEST_LEASE": "3", **(env or {})}
        started.append(Beat(broker, tmp_path, given, *arguments, **options).start())
        return started[-1]

    yield start
    for beat in started:
        beat.close()


def messages(broker):
    """When each entry was sent, in order, as the messages on the broker say."""
    times = {}
    with broker.connection() as connection, connection.SimpleQueue(broker.queue) as queue:
        while True:
            try:
                message = queue.get(block=True, timeout=1)
            except queue.Empty:
                return times
            message.ack()
            (entry,) = message.payload[0]
            times.setdefault(entry, []).append(message.headers["taskkit_sent_at"])


def twice(times):
    """The slots for which an entry was sent more than once. It may be sent a moment late, never early."""
    return {
        entry: [slot for slot, count in Counter(int(at / beat_app.SLOT) for at in sent).items() if count > 1]
        for entry, sent in times.items()
    }


NONE_TWICE = {"a": [], "b": []}


def stands_by(beat):
    beat.says("this one stands by")
    assert beat.sent() == 0


@pytest.mark.parametrize("broker", [pytest.param("redis", marks=pytest.mark.soak), "rabbitmq"], indirect=True)
def test_when_one_is_killed_the_other_sees_it_and_goes_on(broker, start_beat):
    first = start_beat()
    first.goes_on()
    second = start_beat()
    stands_by(second)

    first.end(signal.SIGKILL)
    second.goes_on(6)

    second.end(signal.SIGTERM)
    times = messages(broker)
    assert twice(times) == NONE_TWICE
    assert "this beat takes over" in second.log()
    assert second.log().count("this one stands by") == 1


def test_when_the_other_machine_is_gone_its_lease_ends_and_the_missed_runs_are_told(broker, start_beat):
    first = start_beat()
    first.goes_on()
    second = start_beat(env=ELSEWHERE)
    stands_by(second)

    first.end(signal.SIGKILL)
    second.goes_on(6)

    second.end(signal.SIGTERM)
    assert twice(messages(broker)) == NONE_TWICE
    assert "a (beat.note) should have run" in second.log()
    assert "it runs once now" in second.log()


@pytest.mark.soak
def test_one_that_stops_in_good_order_hands_over_at_once(broker, start_beat):
    first = start_beat()
    second = start_beat(env=ELSEWHERE)
    first.goes_on()
    stands_by(second)
    began = time.time()

    first.end(signal.SIGTERM)
    second.goes_on(6)

    second.end(signal.SIGTERM)
    times = messages(broker)
    assert twice(times) == NONE_TWICE
    assert "should have run" not in second.log(), "a lease would have passed"
    assert state(beat_app.app).is_stopped
    assert state(beat_app.app).seen_at.timestamp() > began


@pytest.mark.parametrize("scheduler", ["file", pytest.param("database", marks=pytest.mark.soak)])
def test_one_that_was_frozen_finds_out_before_it_sends(broker, start_beat, scheduler, request):
    arguments, env = [], {}
    if scheduler == "database":
        request.getfixturevalue("celery_beat_tables")
        arguments, env = [f"--scheduler={DATABASE_SCHEDULER}"], WITH_ITS_TABLES
    first = start_beat(*arguments, env=env)
    first.goes_on()
    second = start_beat(*arguments, env=env)
    stands_by(second)

    freeze(first)
    second.goes_on(4)
    sent = first.sent()
    first.send(signal.SIGCONT)
    first.says("lost its lease")
    second.goes_on(4)
    assert first.sent() == sent, "it has sent nothing since"

    second.end(signal.SIGTERM)
    first.goes_on(4)
    first.end(signal.SIGTERM)
    times = messages(broker)
    if scheduler == "file":
        assert twice(times) == NONE_TWICE
    else:
        assert closest(times) > 0.9


def freeze(beat):
    """Stop it, but not in the middle of a write to SQLite, which would lock the file for everybody."""

    def frozen():
        beat.send(signal.SIGSTOP)
        if connection.vendor != "sqlite":
            return True
        with contextlib.closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=0.2)) as other:
            try:
                other.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                beat.send(signal.SIGCONT)
                return False
            other.rollback()
            return True

    harness.wait_until(frozen, 30, "it is frozen, and holds no lock")


def closest(times):
    """The shortest time between two runs of an entry."""
    return min(after - before for sent in times.values() for before, after in pairwise(sent))


@pytest.fixture
def celery_beat_tables(django_db_blocker, django_env):
    pytest.importorskip("django_celery_beat")
    env = {
        **os.environ,
        **worker_environment({}, {**django_env, "DJANGO_SETTINGS_MODULE": "beat_settings"}),
        **WITH_ITS_TABLES,
    }
    manage = [sys.executable, "-m", "django", "migrate", "django_celery_beat", "-v0"]
    subprocess.run(manage, check=True, env=env, cwd=harness.ROOT)
    yield
    subprocess.run([*manage[:-1], "zero", "-v0"], check=True, env=env, cwd=harness.ROOT)


def test_with_the_schedule_in_the_database_a_killed_one_is_followed_without_a_run_too_many(
    celery_beat_tables, broker, start_beat
):
    arguments = [f"--scheduler={DATABASE_SCHEDULER}"]
    first = start_beat(*arguments, env=WITH_ITS_TABLES)
    first.goes_on(5)
    second = start_beat(*arguments, env=WITH_ITS_TABLES)
    stands_by(second)

    first.end(signal.SIGKILL)
    second.goes_on(5)

    second.end(signal.SIGTERM)
    times = messages(broker)
    assert set(times) == {"a", "b"}
    assert closest(times) > 0.9, "the tables of django-celery-beat know nothing of what the killed one sent"


def test_the_beat_in_a_worker_stands_by_as_well_and_hands_over_when_its_worker_stops(broker, start_beat):
    alone = ("--beat", "--pool=prefork", "--concurrency=1", f"--queues={broker.queue_named('none')}")
    first = start_beat(*alone, command="worker")
    first.goes_on()
    second = start_beat(*alone, command="worker", env=ELSEWHERE)
    stands_by(second)

    first.end(signal.SIGTERM)
    second.goes_on(4)

    second.end(signal.SIGTERM)
    assert twice(messages(broker)) == NONE_TWICE


@pytest.mark.soak
def test_with_the_lock_switched_off_two_beats_send_everything_twice(broker, start_beat):
    off = {"TASKKIT_TEST_BEAT_SETTINGS": json.dumps({"BEAT_LOCK": "off"})}
    beats = [start_beat(env=off), start_beat(env=off)]
    for beat in beats:
        beat.goes_on(4)
    for beat in beats:
        beat.end(signal.SIGTERM)

    assert any(twice(messages(broker)).values())


@pytest.mark.soak
def test_in_a_store_they_meet_as_well(broker, start_beat, server):
    stored = {"TASKKIT_TEST_BEAT_SETTINGS": json.dumps({"BEAT_LOCK": "store", "SHARED_STORE": server.url()})}
    first = start_beat(env=stored)
    first.goes_on()
    second = start_beat(env=stored)
    stands_by(second)

    first.end(signal.SIGKILL)
    second.goes_on(4)

    second.end(signal.SIGTERM)
    assert twice(messages(broker)) == NONE_TWICE


def test_without_its_database_it_sends_while_the_lease_is_surely_its_own_and_then_waits(broker, start_beat, tmp_path):
    database = PostgreSQLServer()
    if not database.installed:
        harness.unavailable("there is no PostgreSQL server on this machine")
    try:
        database.start()
        env = {"TASKKIT_TEST_LIVE_DATABASE": json.dumps(database.settings()), "TASKKIT_TEST_LEASE": "6"}
        migrating = worker_environment({}, {"DJANGO_SETTINGS_MODULE": "beat_settings", **env})
        subprocess.run([sys.executable, "-m", "django", "migrate", "-v0"], check=True, env=migrating, cwd=harness.ROOT)
        beats = [start_beat(env=env)]
        beats[0].goes_on()
        beats.append(start_beat(env=env))
        stands_by(beats[1])

        before = beats[0].sent()
        database.kill()
        beats[0].says("beat can't see to its lease")
        for beat in beats:
            beat.says("beat sends nothing")
        assert beats[0].sent() > before
        assert beats[1].sent() == 0
        database.start()
        harness.wait_until(lambda: beats[0].sent() + beats[1].sent() > before + 8, 60, "one of them sends again")

        for beat in beats:
            assert beat.process.poll() is None
            beat.end(signal.SIGTERM)
        assert twice(messages(broker)) == NONE_TWICE
    finally:
        database.close()
