"""However many ask for a value at the same moment, in however many processes: the task is run once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import harness
import pytest
import result_cache_app as tasks
from django.core.cache import caches as django_caches
from result_caches import SHARED, Folder, all_is_done
from worker_processes import worker_environment

from django_taskkit.results import ResultCache
from django_taskkit.results.values import pack, unpack
from tests.settings import DATABASE

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

HERE = Path(__file__).resolve().parent
ROUNDS, PROCESSES = 5, 4
THREADS = 50 if DATABASE == "sqlite" else 12
"""In each process. A thread has a connection of its own, and PostgreSQL takes a hundred in all."""


@pytest.fixture(scope="module")
def broker():
    with harness.open_broker("redis") as broker:
        yield broker


@pytest.fixture(autouse=True)
def in_force(result_caches, settings):
    settings.CACHES = result_caches
    yield
    django_caches.close_all()


class Crowd:
    """Processes with many threads each that ask for the same values."""

    def __init__(self, processes, threads, env, *arguments):
        self.size = processes * threads
        self.processes = [
            subprocess.Popen(
                [sys.executable, HERE / "result_cache_asking.py", str(threads), *arguments],
                cwd=harness.ROOT,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(processes)
        ]
        self.hear("started")

    def say(self, line):
        for process in self.processes:
            process.stdin.write(f"{line}\n")
            process.stdin.flush()

    def hear(self, expected=None):
        lines = [process.stdout.readline().strip() for process in self.processes]
        assert expected is None or lines == [expected] * len(lines), lines
        return lines

    def ask(self, alias, folder, unlike=""):
        """Let all ask until they have a fresh value other than ``unlike``; return what they were told, together."""
        self.say(json.dumps({"alias": alias, "folder": str(folder), "unlike": unlike}))
        self.hear("ready")
        self.say("go")
        told = [json.loads(line) for line in self.hear()]
        assert [error for one in told for error in one["errors"]] == []
        return Told(
            dispatched=sum(one["dispatched"] for one in told),
            values=[json.loads(value) for one in told for value in one["values"]],
            statuses={status for one in told for status in one["statuses"]},
        )

    def close(self):
        for process in self.processes:
            process.stdin.close()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
            process.stdout.close()


class Told(NamedTuple):
    dispatched: int
    values: list
    statuses: set


@pytest.fixture(scope="module")
def crowd(broker, result_env):
    crowd = Crowd(PROCESSES, THREADS, worker_environment(broker.settings, result_env()))
    yield crowd
    crowd.close()


@pytest.fixture(scope="module")
def worker(broker, result_env, tmp_path_factory):
    with harness.workers(tmp_path_factory.mktemp("workers")) as start:
        yield start("result_cache_app", broker, pool="threads", concurrency=4, env=result_env())


@pytest.fixture
def folder(tmp_path):
    return lambda name: Folder(tmp_path / name)


def age(alias, key, seconds):
    """Make a value older than it is."""
    kept = unpack(django_caches[alias].get(key))
    django_caches[alias].set(key, pack(kept._replace(stored_at=time.time() - seconds)), 600)


def check_rounds(crowd, alias, folder, is_done):
    """Let the crowd ask five times for what is missing; return the folder of the last."""
    for number in range(ROUNDS):
        place = folder(f"round-{number}")

        told = crowd.ask(alias, place)

        assert told.values == [{"run": 1}] * crowd.size
        assert told.dispatched == 1
        assert told.statuses <= {"pending", "running", "hit"}
        harness.wait_until(is_done, 30, "no message is left")
        assert len(place.runs()) == 1

    return place


@pytest.mark.parametrize("alias", SHARED)
def test_all_who_ask_at_once_send_one_task(alias, crowd, worker, broker, producer, folder):
    """Five times, until each has the value, and once more when that is stale; real messages and runs are counted."""
    cached = ResultCache(tasks.quick, timeout=300, stale_for=600, cache=alias)
    place = check_rounds(crowd, alias, folder, lambda: all_is_done(broker))
    first = cached.peek(str(place))
    age(alias, cached.key(str(place)), 400)

    told = crowd.ask(alias, place, unlike=first.value_id)

    assert told.values == [{"run": 2}] * crowd.size
    assert told.dispatched == 1
    assert told.statuses <= {"stale/pending", "stale/running", "hit"}
    harness.wait_until(lambda: all_is_done(broker), 30, "no message is left")
    assert len(place.runs()) == 2


def test_in_the_memory_of_one_process_all_its_threads_send_one_task(result_env, folder):
    """Together with a worker in the very process, which is the only one that can fill such a cache."""
    with harness.open_broker("redis") as own:
        crowd = Crowd(1, PROCESSES * THREADS, worker_environment(own.settings, result_env()), "--with-worker")
        try:
            check_rounds(crowd, "memory", folder, lambda: all_is_done(own))
        finally:
            crowd.close()
