"""A dependency is out for everyone: with a budget its tasks call it about once and wait, and then all succeed."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import budget_app
import harness
import pytest
from django.test import override_settings
from worker_processes import worker_environment

from django_taskkit.base_tasks.gates.breaker import State
from django_taskkit.models import DeadLetter, OutboxMessage, RelayHeartbeat

pytestmark = pytest.mark.django_db(transaction=True)

APP = Path(__file__).resolve().parent / "budget_app.py"
TASKS = 120


class Dependency:
    """An HTTP server that counts its calls by kind, and answers 503 to those that it is told to fail."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.served: defaultdict[str, set[str]] = defaultdict(set)
        self.fails = lambda number_of_call: True
        lock = threading.Lock()
        dependency = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, kind, task = self.path.split("/")
                with lock:
                    dependency.calls[kind] += 1
                    fails = dependency.fails(dependency.calls[kind])
                    if not fails:
                        dependency.served[kind].add(task)
                self.send_response(503 if fails else 200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def dependency():
    dependency = Dependency()
    yield dependency
    dependency.close()


@pytest.fixture
def store(broker):
    """The settings of the workers' shared store, in this process as well."""
    with override_settings(TASKKIT={"SHARED_STORE": broker.url}):
        yield broker.url


@pytest.fixture
def env(django_env, store):
    return {**django_env, "DJANGO_SETTINGS_MODULE": "budget_settings", "TASKKIT_TEST_STORE": store}


@pytest.fixture
def relay(broker, env, tmp_path):
    with open(tmp_path / "relay.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, APP, "taskkit", "relay", "--interval", "0.2"],
            env=worker_environment(broker.settings, env),
            cwd=harness.ROOT,
            stdout=log,
            stderr=log,
        )
    try:
        harness.wait_until(RelayHeartbeat.objects.exists, 60, "the relay is there")
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def no_store():
    """The store that the workers are told of is a Redis that is gone."""
    return f"redis://127.0.0.1:{harness.free_port()}/0"


@pytest.fixture
def two_workers(broker, producer, start_worker, env, relay):
    return [
        start_worker("budget_app", broker, concurrency=2, env=env, settings={"worker_prefetch_multiplier": 4})
        for _ in range(2)
    ]


def send(task, dependency, first=0, count=TASKS):
    for number in range(first, first + count):
        task.delay(dependency.address, number)


def served(dependency, kind, count):
    return lambda: len(dependency.served[kind]) >= count and dependency.served[kind]


def test_in_an_outage_calls_fall_to_about_one_for_each_task_and_then_all_succeed(two_workers, dependency):
    send(budget_app.within, dependency)
    send(budget_app.without, dependency)
    harness.wait_until(lambda: dependency.calls["without"] == 6 * TASKS, 180, "those without a budget have given up")

    calls = dependency.calls["within"]
    print(f"calls for each task: {calls / TASKS:.2f} with a budget, 6 without")
    assert TASKS <= calls <= 1.3 * TASKS
    assert budget_app.BUDGET.level() <= 5
    harness.wait_until(lambda: DeadLetter.objects.count() == TASKS, 60, "these are dead letters")
    assert set(DeadLetter.objects.values_list("task_name", "reason")) == {("budget.without", "retries_exhausted")}

    dependency.fails = lambda number: False
    harness.wait_until(served(dependency, "within", TASKS), 120, "all that waited have succeeded")

    harness.wait_until(lambda: not OutboxMessage.objects.exists(), 30, "nothing waits any more")
    assert DeadLetter.objects.filter(task_name="budget.within").count() == 0
    assert budget_app.BUDGET.level() > 5


def test_at_two_failures_in_a_hundred_calls_nothing_changes(two_workers, dependency):
    dependency.fails = lambda number: number % 50 == 0

    send(budget_app.within, dependency, count=2 * TASKS)
    send(budget_app.without, dependency, count=2 * TASKS)
    for kind in ("within", "without"):
        harness.wait_until(served(dependency, kind, 2 * TASKS), 120, "all have succeeded")

    assert dependency.calls["within"] == dependency.calls["without"] == 244
    assert not any("the retry budget" in worker.log() for worker in two_workers), "none had to wait"


def test_behind_a_breaker_a_few_probes_find_out_when_it_is_over(two_workers, dependency):
    send(budget_app.broken, dependency)
    harness.wait_until(lambda: OutboxMessage.objects.count() == TASKS, 90, "all wait")

    calls = dependency.calls["broken"]
    print(f"{calls} calls of {TASKS} tasks behind a breaker")
    assert 10 <= calls <= 40, "it opened after ten failures; a few more were under way, or probes"
    assert budget_app.BREAKER.state() is not State.CLOSED

    dependency.fails = lambda number: False
    harness.wait_until(served(dependency, "broken", TASKS), 120, "all that waited have succeeded")

    assert budget_app.BREAKER.state() is State.CLOSED
    assert not DeadLetter.objects.exists()


def test_with_the_store_away_tasks_are_retried_as_if_there_were_no_budget(
    broker, producer, start_worker, env, no_store, relay, dependency
):
    worker = start_worker("budget_app", broker, concurrency=2, env={**env, "TASKKIT_TEST_STORE": no_store})

    send(budget_app.within, dependency, count=20)
    send(budget_app.broken, dependency, first=20, count=20)
    harness.wait_until(lambda: DeadLetter.objects.count() == 40, 120, "all have used up their retries")

    assert (dependency.calls["within"], dependency.calls["broken"]) == (120, 120)
    for what in ("the retry budget 'shop'", "the breaker 'bank'"):
        said = worker.log().count(f"{what} lets every task through")
        assert 1 <= said <= 2, "one warning from each process"
