"""What ``SHARED_STORE`` may name, and what is said of the rest; no server is asked."""

import sys

import pytest
from django.test import override_settings

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.stores.cache import CacheStore
from django_taskkit.stores.opening import NoStoreError, shared_store
from django_taskkit.stores.redis import RedisStore
from django_taskkit.stores.visibility import problems

BACKENDS = "django.core.cache.backends"
MEMORY = {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"}
DUMMY = {"BACKEND": f"{BACKENDS}.dummy.DummyCache"}
FILES = {"BACKEND": f"{BACKENDS}.filebased.FileBasedCache", "LOCATION": "/nonexistent/cache"}
ON_REDIS = {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": "redis://example/0"}
MISSING = {"BACKEND": "nowhere.Cache"}


def opened(name="default", **caches):
    with override_settings(CACHES=caches, TASKKIT={"SHARED_STORE": name}):
        return shared_store().store


def test_without_a_setting_it_is_the_default_cache():
    with override_settings(CACHES={"default": MEMORY}, TASKKIT={}):
        assert isinstance(shared_store().store, CacheStore)


@pytest.mark.parametrize(
    "url", ["redis://example/3", "rediss://user:word@example:6380/0", "unix:///run/redis.sock?db=1"]
)
def test_a_url_is_a_redis(url):
    assert isinstance(opened(url), RedisStore)


def test_a_cache_on_redis_is_used_as_a_redis():
    assert isinstance(opened(default=ON_REDIS), RedisStore)


def test_a_cache_on_several_redis_servers_is_read_where_it_is_written():
    replicated = {**ON_REDIS, "LOCATION": ["redis://primary/0", "redis://replica/0"]}

    store = opened(default=replicated)

    assert store._client.connection_pool.connection_kwargs["host"] == "primary"


def test_connections_of_a_cache_keep_address_and_password_and_get_time_limits():
    cache = {**ON_REDIS, "LOCATION": "redis://user:word@example:7777/5", "OPTIONS": {"decode_responses": True}}

    options = opened(default=cache)._client.connection_pool.connection_kwargs

    assert [options[name] for name in ("host", "port", "db", "username", "password")] == [
        "example",
        7777,
        5,
        "user",
        "word",
    ]
    assert (options["socket_timeout"], options["socket_connect_timeout"]) == (1, 1)
    assert not options.get("decode_responses")


def test_it_is_opened_once_for_a_setting():
    with override_settings(CACHES={"default": MEMORY, "other": MEMORY}, TASKKIT={}):
        first = shared_store()
        assert shared_store() is first
        with override_settings(TASKKIT={"SHARED_STORE": "other"}):
            assert shared_store() is not first


@pytest.mark.parametrize(
    ("name", "cache", "said"),
    [
        ("orders", MEMORY, "'orders'; give the alias of a cache ('default')"),
        ("default", DUMMY, "DummyCache, which keeps nothing"),
        ("default", FILES, "FileBasedCache, which can't tell who wrote first"),
        ("default", MISSING, "can't be opened"),
        ("https://user:s3cret@example", MEMORY, "https://…; a URL has to begin with redis://"),
        ("redis://user:s3cret@example:port", MEMORY, "redis://…, which can't be used"),
        (
            "redis://:s3cret/with-a-slash@example/0",
            MEMORY,
            "redis://…, which can't be used: its host or port makes no sense",
        ),
        ("redis://:s3cret#with-a-hash@example/0", MEMORY, "a password's special characters have to be escaped"),
        ("redis:/user:s3cret@example/0", MEMORY, "redis:…; give the alias of a cache"),
        ("redis://:s3cret@example/0?timeout=3", MEMORY, "unexpected keyword argument 'timeout'"),
        ("rediss://:s3cret@example/0?ssl_cert_reqs=maybe", MEMORY, "Requirements Flag: maybe"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_remedy_and_without_passwords(name, cache, said):
    with pytest.raises(NoStoreError) as caught:
        opened(name, default=cache)

    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert isinstance(caught.value, StoreError)
    assert isinstance(caught.value, ConfigurationError)


@pytest.mark.parametrize("name", ["redis://example/0", "default"])
def test_without_redis_py_the_remedy_is_named(monkeypatch, name):
    for module in [name for name in sys.modules if name.partition(".")[0] == "redis"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "redis", None)

    with pytest.raises(NoStoreError, match=r"redis"):
        opened(name, default=ON_REDIS)


def task(station, name="t.task", **options):
    @station.app.task(base=BaseTaskWithRetry, name=name, **options)
    def body(order_id=None):
        pass

    return body


@pytest.mark.parametrize("options", [{"retry_budget": "a"}, {"breaker": "a"}, {"idempotency_key": "order_id"}])
def test_a_cache_in_memory_is_a_problem_for_tasks_that_share_something(station, options):
    task(station, **options)

    with override_settings(CACHES={"default": MEMORY}, TASKKIT={}):
        (problem,) = problems(station.app)

    assert "'default', a cache in the memory of each process" in problem.text
    assert "t.task" in problem.hint


@pytest.mark.parametrize(("name", "cache"), [("default", DUMMY), ("none", MEMORY), ("default", FILES)])
def test_a_store_that_is_none_is_a_problem_for_them(station, name, cache):
    for number in range(5):
        task(station, f"t.task{number}", retry_budget="a")

    with override_settings(CACHES={"default": cache}, TASKKIT={"SHARED_STORE": name}):
        (problem,) = problems(station.app)

    assert problem.text.startswith("TASKKIT['SHARED_STORE'] is")
    assert "t.task0, t.task1, t.task2 and 2 more" in problem.hint


def test_a_store_that_others_see_is_no_problem(station):
    task(station, retry_budget="a")

    with override_settings(CACHES={"default": ON_REDIS}, TASKKIT={}):
        assert list(problems(station.app)) == []


def test_tasks_that_share_nothing_need_no_store(station):
    task(station)

    with override_settings(CACHES={"default": DUMMY}, TASKKIT={}):
        assert list(problems(station.app)) == []
