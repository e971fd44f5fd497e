"""Every kind of store, on real servers; those that need one are live tests."""

import itertools
import sys
from pathlib import Path

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from django_taskkit.stores.opening import shared_store

LIVE = str(Path(__file__).resolve().parent.parent / "live")
TABLE = "taskkit_test_cache"
_databases = itertools.count()


def _started(name):
    if LIVE not in sys.path:
        sys.path.append(LIVE)
    import services

    server = getattr(services, name)()
    if not server.installed:
        pytest.skip(f"there is no {server.program} on this machine")
    yield server.start()
    server.close()


@pytest.fixture(scope="session")
def redis_server():
    yield from _started("RedisServer")


@pytest.fixture
def redis_url(redis_server):
    """An empty database that no other test uses."""
    return redis_server.url(next(_databases))


@pytest.fixture(scope="session")
def memcached_server():
    pytest.importorskip("pymemcache")
    yield from _started("MemcachedServer")


@pytest.fixture
def chosen(request):
    """The settings of the store named by an indirect parameter, in force."""
    yield from CHOICES[request.param](request)


@pytest.fixture
def store(chosen):
    return shared_store()


def _in_force(name, cache=None):
    chosen = {"CACHES": {"default": cache} if cache else {}, "TASKKIT": {"SHARED_STORE": name}}
    with override_settings(**chosen):
        yield chosen


def redis_itself(request):
    yield from _in_force(request.getfixturevalue("redis_url"))


def redis_cache(request):
    cache = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": request.getfixturevalue("redis_url"),
        "KEY_PREFIX": "site",
    }
    yield from _in_force("default", cache)


def django_redis(request):
    pytest.importorskip("django_redis")
    cache = {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": request.getfixturevalue("redis_url")}
    yield from _in_force("default", cache)


def memcached(request):
    cache = {
        "BACKEND": "django.core.cache.backends.memcached.PyMemcacheCache",
        "LOCATION": request.getfixturevalue("memcached_server").address,
    }
    for chosen in _in_force("default", cache):
        caches["default"].clear()
        yield chosen
        caches["default"].close()


def memory(request):
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": request.node.name}
    for chosen in _in_force("default", cache):
        caches["default"].clear()
        yield chosen


def database(request):
    cache = {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": TABLE}
    for chosen in _in_force("default", cache):
        call_command("createcachetable")
        yield chosen
        with connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {TABLE}")


CHOICES = {
    "redis": redis_itself,
    "redis_cache": redis_cache,
    "django_redis": django_redis,
    "memcached": memcached,
    "memory": memory,
    "database": database,
}
