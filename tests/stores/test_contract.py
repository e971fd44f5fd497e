"""What every store promises, whatever keeps it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.db import connection, connections

from django_taskkit.stores import update
from django_taskkit.stores.opening import shared_store

ROOT = Path(__file__).resolve().parent.parent.parent


TABLES = pytest.mark.django_db(transaction=True)


def live(name, *marks):
    return pytest.param(name, marks=[pytest.mark.live, *marks])


ON_SERVERS = [live("redis"), live("redis_cache"), live("django_redis"), live("memcached")]
DATABASE = pytest.param("database", marks=TABLES)
every_store = pytest.mark.parametrize("chosen", [*ON_SERVERS, "memory", DATABASE], indirect=True)
every_shared_store = pytest.mark.parametrize("chosen", [*ON_SERVERS, live("database", TABLES)], indirect=True)

pytestmark = pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")


def one_more(value):
    number = int(value or 0) + 1
    return b"%d" % number, number


@every_store
def test_a_key_that_was_never_written_has_no_value(store):
    assert store.read("taskkit:none") is None


@every_store
@pytest.mark.parametrize("value", [b"", b"text", b"\x00\xff\n", b"=", b"1"])
def test_a_value_is_read_as_it_was_written(store, value):
    assert store.swap("taskkit:bytes", None, value, ttl=60)

    assert store.read("taskkit:bytes") == value
    assert store.swap("taskkit:bytes", value, b"other", ttl=60)


@every_store
def test_a_swap_from_what_is_not_there_changes_nothing(store):
    assert store.swap("taskkit:a", None, b"1", ttl=60)

    assert not store.swap("taskkit:a", None, b"2", ttl=60)
    assert not store.swap("taskkit:a", b"0", b"2", ttl=60)
    assert not store.swap("taskkit:missing", b"0", b"2", ttl=60)
    assert (store.read("taskkit:a"), store.read("taskkit:missing")) == (b"1", None)


@every_store
def test_an_empty_value_is_not_the_same_as_none(store):
    assert store.swap("taskkit:empty", None, b"", ttl=60)

    assert not store.swap("taskkit:empty", None, b"1", ttl=60)


@every_store
def test_a_value_swapped_for_none_is_gone(store):
    store.swap("taskkit:gone", None, b"1", ttl=60)

    assert store.swap("taskkit:gone", b"1", None, ttl=60)
    assert store.read("taskkit:gone") is None
    assert store.swap("taskkit:gone", None, b"2", ttl=60)


@every_store
@pytest.mark.parametrize("key", ["taskkit:budget:Straße", "taskkit:" + "x" * 400, "taskkit:with blanks\nand lines"])
def test_a_key_may_be_long_or_odd(store, key):
    assert store.swap(key, None, b"1", ttl=60)
    assert store.read(key) == b"1"


@every_store
def test_a_value_is_forgotten_when_its_time_is_up(store):
    store.swap("taskkit:soon", None, b"1", ttl=0.3)
    deadline = time.monotonic() + 30

    while store.read("taskkit:soon") is not None:
        assert time.monotonic() < deadline, "the value is still there"
        time.sleep(0.05)

    assert store.swap("taskkit:soon", None, b"2", ttl=60)


@every_store
def test_no_increment_of_many_threads_is_lost(store):
    threads, times, errors = 4, 25, []

    def count():
        try:
            for _ in range(times):
                update(shared_store(), "taskkit:threads", one_more, ttl=600)
        except Exception as exc:
            errors.append(exc)
        finally:
            connections.close_all()

    running = [threading.Thread(target=count) for _ in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()

    assert errors == []
    assert store.read("taskkit:threads") == b"%d" % (threads * times)


@every_shared_store
def test_no_increment_of_many_processes_is_lost(store, chosen):
    processes, times = 4, 40
    database = {
        name: connection.settings_dict[name]
        for name in ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT", "OPTIONS")
    }
    arguments = ["taskkit:processes", str(times), json.dumps(chosen), json.dumps(database, default=str)]
    running = [
        subprocess.Popen(
            [sys.executable, Path(__file__).with_name("increments.py"), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(processes)
    ]

    assert [process.stdout.readline() for process in running] == [b"ready\n"] * processes

    for process in running:
        process.stdin.write(b"go\n")
        process.stdin.flush()

    for process in running:
        process.communicate(timeout=120)
    assert [process.returncode for process in running] == [0] * processes
    assert store.read("taskkit:processes") == b"%d" % (processes * times)


@every_store
def test_a_change_that_changes_nothing_writes_nothing(store):
    before = store.read("taskkit:same")

    answer = update(store, "taskkit:same", lambda value: (value, "seen"), ttl=60)

    assert (before, answer, store.read("taskkit:same")) == (None, "seen", None)


@pytest.mark.live
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("chosen", ["redis", "redis_cache"], indirect=True)
def test_a_process_that_was_forked_has_connections_of_its_own(store, chosen):
    store.swap("taskkit:fork", None, b"0", ttl=60)

    children = [_forked(count_to_twenty, store) for _ in range(3)]
    count_to_twenty(None)

    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0, 0]
    assert store.read("taskkit:fork") == b"80"


def count_to_twenty(inherited):
    assert shared_store() is not inherited
    for _ in range(20):
        update(shared_store(), "taskkit:fork", one_more, ttl=60)


def _forked(call, *args):
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        call(*args)
        code = 0
    finally:
        os._exit(code)
