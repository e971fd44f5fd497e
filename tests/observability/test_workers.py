import time

import pytest
from celery.concurrency import get_implementation

from django_taskkit.observability.workers import WorkerState, _of_report, _of_stats
from django_taskkit.worker.report_command import pool_name


def reported(**answer):
    return _of_report("w@host", {"celery": "5.7.0", **answer}, time.time(), 0.2)


def test_a_worker_is_what_it_says():
    found = reported(
        queues=["b", "a"], pool="threads", concurrency=4, pid=7, python="3.13", taskkit="0.1", release="r1", tasks=["t"]
    )

    assert (found.hostname, found.queues, found.pool, found.concurrency, found.pid) == (
        "w@host",
        ("a", "b"),
        "threads",
        4,
        7,
    )
    assert (found.celery_version, found.python_version, found.taskkit_version) == ("5.7.0", "3.13", "0.1")
    assert (found.release, found.tasks) == ("r1", frozenset({"t"}))


@pytest.mark.parametrize("nonsense", [None, "x", 3, True, {}, []])
def test_what_makes_no_sense_in_an_answer_is_not_believed(nonsense):
    found = reported(time=nonsense, concurrency={}, pid=None, tasks=None)

    assert (found.clock_ahead, found.concurrency, found.pid, found.tasks) == (None, None, None, None)
    assert _of_stats("w@host", nonsense) == WorkerState(hostname="w@host")
    assert _of_stats("w@host", {"pool": nonsense, "pid": "x"}) == WorkerState(hostname="w@host")


def test_a_clock_is_compared_with_the_middle_of_question_and_answer():
    sent_at = time.time()

    found = _of_report("w@host", {"celery": "5", "time": sent_at + 100}, sent_at, 0.5)

    assert found.clock_ahead == pytest.approx(99.75)
    assert found.clock_error == 0.25


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_a_pool_is_called_as_the_option_calls_it(pool):
    implementation = get_implementation(pool)
    path = f"{implementation.__module__}:{implementation.__name__}"

    assert pool_name(object.__new__(implementation)) == pool
    assert _of_stats("w@host", {"pool": {"implementation": path, "max-concurrency": 3}}) == WorkerState(
        hostname="w@host", pool=pool, concurrency=3
    )
