"""The same key is not run twice; with real workers that are killed, retry, and lose their store."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import harness
import idempotency_app as tasks
import pytest
import redis
from celery import chain
from celery.app.task import Context
from django.db import connections
from spool_settings import TASKKIT_VARIABLE

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.gates import Outcome, Run, Wait
from django_taskkit.base_tasks.gates.idempotency import gate_of
from django_taskkit.models import DeadLetter, OutboxMessage
from django_taskkit.outbox.relay import Relay
from django_taskkit.stores.redis import RedisStore

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

EVERYWHERE = [
    pytest.param(broker, pool, id=f"{broker}-{pool}")
    for broker in ("redis", "rabbitmq")
    for pool in ("prefork", "threads", "gevent")
]
everywhere = pytest.mark.parametrize(("broker", "pool"), EVERYWHERE, indirect=["broker"])


@pytest.fixture
def store_url(broker):
    return broker.settings["result_backend"]


@pytest.fixture
def start(start_worker, broker, django_env, store_url):
    def start(pool="prefork", concurrency=4, **options):
        if pool == "gevent":
            pytest.importorskip("gevent")
        env = {
            **django_env,
            "DJANGO_SETTINGS_MODULE": "spool_settings",
            TASKKIT_VARIABLE: json.dumps({"SHARED_STORE": store_url}),
        }
        return start_worker("idempotency_app", broker, pool=pool, concurrency=concurrency, env=env, **options)

    return start


class Folder:
    """Where the tasks write and what they wait for."""

    def __init__(self, path):
        self.path = path

    def __str__(self):
        return str(self.path)

    def runs(self):
        """Task id and retries of each run of a body, in their order."""
        path = self.path / "runs"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def touch(self, name):
        (self.path / name).touch()


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "tasks"
    path.mkdir()
    return Folder(path)


@pytest.fixture(autouse=True)
def relayed(producer):
    """Wait for something while a relay sends what waits in the outbox."""
    relay = Relay(producer, name="test")
    relay.run_once()  # workers send there what waits if they know of a relay

    def relayed(condition, message, timeout=90):
        def look():
            relay.run_once()
            return condition()

        return harness.wait_until(look, timeout, message, interval=0.2)

    yield relayed
    relay.release()


@pytest.fixture
def both_end(relayed):
    def both_end(*results, timeout=90):
        relayed(lambda: all(result.ready() for result in results), "both have ended", timeout)
        return [result.get(timeout=5) for result in results]

    return both_end


@pytest.fixture
def killed(start, folder):
    """Send a task whose worker is killed while it runs; what is asked for later finds its way free."""

    def killed(task, pool):
        worker = start(pool, concurrency=1)
        result = task.delay(7, str(folder))
        harness.wait_until(folder.runs, 30, "it runs")
        os.killpg(worker.pid, signal.SIGKILL)
        folder.touch("go")
        return result

    return killed


def waits_in_the_outbox(result):
    return OutboxMessage.objects.filter(task_id=result.id).exists()


@everywhere
def test_two_that_are_sent_together_run_once_and_end_with_the_same_result(start, pool, folder, both_end):
    start(pool)
    first, second = tasks.charge.delay(7, str(folder)), tasks.charge.delay(folder=str(folder), order_id=7)
    harness.wait_until(folder.runs, 30, "one of them runs")
    waiting = harness.wait_until(
        lambda: next(filter(waits_in_the_outbox, (first, second)), None), 30, "the other waits"
    )
    folder.touch("go")

    results = both_end(first, second)

    ((ran, _),) = folder.runs()
    assert ran != waiting.id
    assert results == [{"by": ran}, {"by": ran}]
    assert first.state == second.state == "SUCCESS"
    assert not DeadLetter.objects.exists()


def test_fifty_that_are_sent_at_once_run_once(start, folder, both_end):
    folder.touch("go")
    results = [tasks.charge.delay(7, str(folder)) for _ in range(50)]
    start("threads", concurrency=16)

    answers = both_end(*results)

    ((ran, _),) = folder.runs()
    assert answers == [{"by": ran}] * 50


def test_chains_of_duplicates_go_on(start, folder, relayed):
    folder.touch("go")
    start("threads")

    chains = [chain(tasks.charge.s(7, str(folder)), tasks.after.s(str(folder))).delay() for _ in range(3)]
    relayed(lambda: all(result.ready() for result in chains), "all chains have ended")

    ((ran, _),) = folder.runs()
    assert Path(str(folder), "after").read_text().split() == [ran] * 3


@everywhere
def test_retries_pass_through_while_a_duplicate_waits(start, pool, folder, both_end):
    start(pool)
    first = tasks.flaky.delay(7, str(folder))
    harness.wait_until(folder.runs, 30, "the first has run once")
    second = tasks.flaky.delay(7, folder=str(folder))

    results = both_end(first, second)

    assert folder.runs() == [[first.id, "0"], [first.id, "1"], [first.id, "2"]]
    assert results == [{"by": first.id}, {"by": first.id}]


@pytest.mark.parametrize(("broker", "pool"), EVERYWHERE[:2] + EVERYWHERE[3:5], indirect=["broker"])
def test_a_killed_worker_does_not_lock_its_key(start, killed, broker, pool, folder, both_end):
    """Its message is delivered again, under the same id, and passes."""
    if broker.name == "redis":
        broker.settings["broker_transport_options"] = {"visibility_timeout": 4, "unacked_restore_throttle": 1}
    first = killed(tasks.charge, pool)

    start(pool)
    second = tasks.charge.delay(7, str(folder))

    assert both_end(first, second, timeout=180) == [{"by": first.id}, {"by": first.id}]
    assert [run for run, _ in folder.runs()] == [first.id, first.id]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_one_that_is_lost_with_its_worker_frees_the_key_after_the_lease(start, killed, pool, folder, both_end):
    """It was acknowledged early, so nobody delivers it again, and nobody knows that it has died."""
    lost = killed(tasks.early, pool)

    start(pool)
    second = tasks.early.delay(7, str(folder))
    assert both_end(second) == [{"by": second.id}]

    assert [run for run, _ in folder.runs()] == [lost.id, second.id]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_holder_that_took_its_process_along_gives_way_before_its_lease_ends(start, folder, both_end, store_url):
    start("prefork", concurrency=2)
    first = tasks.deadly.delay(7, str(folder))
    harness.wait_until(folder.runs, 30, "it runs")
    second = tasks.deadly.delay(7, str(folder))
    harness.wait_until(lambda: waits_in_the_outbox(second), 30, "its duplicate waits")
    folder.touch("die")

    letter = harness.wait_until(DeadLetter.objects.first, 30, "it is a dead letter")
    assert (letter.task_id, letter.reason) == (first.id, "worker_lost")
    with redis.Redis.from_url(store_url) as client:
        (key,) = client.scan_iter("*taskkit:once:*")
        client.persist(key)  # its lease never ends
    assert both_end(second) == [{"by": second.id}]
    assert [run for run, _ in folder.runs()] == [first.id, second.id]


def test_after_a_failure_the_duplicate_runs_and_the_requeued_one_is_answered(start, folder, both_end, relayed):
    from django_taskkit.dlq import requeue

    start("threads")
    first = tasks.failing.delay(7, str(folder))
    harness.wait_until(folder.runs, 30, "it runs")
    second = tasks.failing.delay(7, str(folder))
    harness.wait_until(lambda: waits_in_the_outbox(second), 30, "its duplicate waits")
    folder.touch("fail")

    assert both_end(second) == [{"by": second.id}]
    requeue(DeadLetter.objects.all())
    relayed(lambda: DeadLetter.objects.filter(status="recovered").exists(), "the first has recovered")
    assert first.get(timeout=10) == {"by": second.id}
    assert [run for run, _ in folder.runs()] == [first.id, second.id]


@pytest.mark.parametrize("pool", ["prefork", "threads", "gevent"])
def test_a_run_longer_than_its_lease_keeps_its_key(start, pool, folder, both_end, store_url):
    start(pool)
    first = tasks.long.delay(7, str(folder))
    harness.wait_until(folder.runs, 30, "it runs")
    with redis.Redis.from_url(store_url) as client:

        def renewals():
            (key,) = client.scan_iter("*taskkit:once:*")
            return json.loads(client.get(key))["renewals"]

        harness.wait_until(lambda: renewals() >= 6, 30, "twice the lease has passed")
    second = tasks.long.delay(7, str(folder))
    harness.wait_until(lambda: waits_in_the_outbox(second), 30, "its duplicate waits")
    folder.touch("go")

    assert both_end(first, second) == [{"by": first.id}, {"by": first.id}]
    assert len(folder.runs()) == 1


class TestWithoutItsStore:
    @pytest.fixture
    def store_url(self, server):
        return server.url()

    def test_a_task_waits_until_the_store_is_back(self, server, start, folder, both_end):
        start("threads")
        folder.touch("go")
        server.kill()

        first, second = tasks.charge.delay(7, str(folder)), tasks.charge.delay(7, str(folder))
        harness.wait_until(
            lambda: waits_in_the_outbox(first) and waits_in_the_outbox(second), 30, "both wait in the outbox"
        )
        assert folder.runs() == []
        server.start()

        one, other = both_end(first, second, timeout=180)
        assert one == other
        assert len(folder.runs()) == 1

    def test_a_success_that_could_not_be_written_down_is_remembered_when_the_store_is_back(
        self, server, start, folder, both_end, store_url
    ):
        worker = start("threads")
        first = tasks.charge.delay(7, str(folder))
        harness.wait_until(folder.runs, 30, "it runs")
        server.kill()
        folder.touch("go")
        assert first.get(timeout=60) == {"by": first.id}
        worker.wait_for_log("is written down later")
        server.start()

        with redis.Redis.from_url(store_url) as client:
            (key,) = client.scan_iter("*taskkit:once:*")
            harness.wait_until(lambda: json.loads(client.get(key))["done"], 60, "it is written down")
        second = tasks.charge.delay(7, str(folder))
        assert both_end(second) == [{"by": first.id}]
        assert len(folder.runs()) == 1


@pytest.mark.parametrize("window", [0, 60])
def test_of_many_threads_that_want_the_same_key_one_has_it_at_a_time(broker, producer, window):
    """Against a real Redis, as fast as it goes."""
    store = RedisStore.at(broker.settings["result_backend"])

    @producer.task(base=BaseTaskWithRetry, shared=False, idempotency_key=(), idempotency_window=window)
    def raced(): ...

    gate = replace(gate_of(producer.tasks[raced.name]), store=lambda: store)
    inside, most, ran = [], [0], []
    deadline = time.monotonic() + 60

    def want(number):
        for turn in range(20):
            run = Run(task=raced, request=Context(id=f"{number}-{turn}"), args=(), kwargs={})
            while time.monotonic() < deadline:
                try:
                    answer = gate.enter(run)
                except Wait:
                    continue
                if answer is None:
                    inside.append(number)
                    most[0] = max(most[0], len(inside))
                    ran.append((number, turn))
                    inside.remove(number)
                    gate.leave(run, Outcome.SUCCEEDED, result=number)
                break

    threads = [Thread(target=run_and_close, args=(want, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert most == [1]
    assert len(ran) == (1 if window else 8 * 20)


def run_and_close(work, number):
    try:
        work(number)
    finally:
        connections.close_all()
