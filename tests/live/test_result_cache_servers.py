"""Cached results on servers that stand still, are full, or take only short keys."""

from __future__ import annotations

import threading

import pytest
import redis
from django.core.cache import caches
from services import MemcachedServer, RedisServer
from waiting import unavailable, wait_until

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results import ResultCache, Status, dispatch
from django_taskkit.stores.opening import _open

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

BACKENDS = "django.core.cache.backends"
STAND_STILL = """
redis.call('PING')
local now = redis.call('TIME')
local till = now[1] * 1000000 + now[2] + 1700000
repeat now = redis.call('TIME') until now[1] * 1000000 + now[2] > till
"""


@pytest.fixture
def report(station):
    runs = []

    @station.app.task(name="shop.report")
    def report(user_id):
        runs.append(user_id)
        return {"user": user_id}

    task = station.app.tasks["shop.report"]
    task.runs = runs
    return task


@pytest.fixture
def redis_server():
    server = RedisServer()
    if not server.installed:
        unavailable("there is no redis-server on this machine")
    server.start()
    yield server
    caches.close_all()
    server.close()


@pytest.fixture
def use(settings):
    def use(backend, location, **more):
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": location, **more}}
        _open.clear()

    yield use
    caches.close_all()
    _open.clear()


def test_what_was_recorded_by_an_answer_that_came_too_late_is_sent_by_the_next(
    station, report, use, redis_server, monkeypatch
):
    """Redis stands still for 1.7 s (a large KEYS, a fork): the swap is made, and its answer isn't waited for."""
    use(f"{BACKENDS}.redis.RedisCache", redis_server.url())
    monkeypatch.setattr(dispatch, "SENDING", 2.0)
    cache = ResultCache(report)
    cache.get_or_dispatch(8)  # the script is known from here on
    station.run_all()
    other = redis.Redis.from_url(redis_server.url())
    store = cache._dispatcher.store
    swap = store.swap

    def swap_while_it_stands_still(*args, **kwargs):
        busy = threading.Thread(target=lambda: other.eval(STAND_STILL, 0))
        busy.start()
        threading.Event().wait(0.2)
        try:
            return swap(*args, **kwargs)
        finally:
            busy.join()

    with monkeypatch.context() as patch:
        patch.setattr(store, "swap", swap_while_it_stands_still)
        assert cache.get_or_dispatch(7).status is Status.REFUSED
    assert station.waiting() == 0
    _open.clear()

    wait_until(lambda: cache.get_or_dispatch(7).dispatched, 20, "the task counts as not sent")


def test_a_value_for_which_redis_has_no_memory_is_a_failure(station, use, redis_server):
    @station.app.task(name="shop.big")
    def big():
        return "x" * 5_000_000

    use(f"{BACKENDS}.redis.RedisCache", redis_server.url())
    redis.Redis.from_url(redis_server.url()).config_set("maxmemory", "4mb")
    cache = ResultCache(big)
    cache.get_or_dispatch()
    station.run_next()
    _open.clear()

    assert cache.peek().status is Status.FAILED


@pytest.mark.parametrize("serializer", ["json.JSONSerializer", "msgpack.MSGPackSerializer"])
def test_a_value_that_django_redis_writes_in_another_format_is_found(station, report, use, redis_server, serializer):
    pytest.importorskip("django_redis")
    pytest.importorskip(serializer.partition(".")[0])
    options = {"SERIALIZER": f"django_redis.serializers.{serializer}"}
    use("django_redis.cache.RedisCache", redis_server.url(), OPTIONS=options)
    cache = ResultCache(report)
    for _ in range(3):
        cache.get_or_dispatch(7)
        station.run_all()

    assert report.runs == [7]


def test_a_prefix_that_leaves_no_room_for_long_arguments_on_memcached_is_said(station, report, use):
    pytest.importorskip("pymemcache")
    server = MemcachedServer()
    if not server.installed:
        unavailable("there is no memcached on this machine")
    server.start()
    try:
        use(f"{BACKENDS}.memcached.PyMemcacheCache", server.address, KEY_PREFIX="p" * 60)

        with pytest.raises(ConfigurationError, match="shorten its KEY_PREFIX"):
            ResultCache(report).get_or_dispatch("x" * 200)
    finally:
        caches.close_all()
        server.close()
