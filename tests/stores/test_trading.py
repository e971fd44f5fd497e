"""What every store in a cache promises of trading: a fact for a value, in one step, for one of all who want it."""

import threading
import time
from datetime import datetime, timezone

import pytest
from django.core.cache import caches
from django.db import connection, connections, transaction
from django.test import override_settings

from django_taskkit.exceptions import ConfigurationError, StoreError, ValueNotKeptError
from django_taskkit.stores.opening import NoStoreError, shared_store, store_in_cache

TABLES = pytest.mark.django_db(transaction=True)
DATABASE = pytest.param("database", marks=TABLES)


def live(name):
    return pytest.param(name, marks=pytest.mark.live)


every_cache = pytest.mark.parametrize(
    "chosen", [live("redis_cache"), live("django_redis"), live("memcached"), "memory", DATABASE], indirect=True
)

FACT, VALUE = "taskkit:fact", "taskkit:result:value"


class Unpicklable:
    def __reduce__(self):
        raise RuntimeError("this object has a secret")


@pytest.fixture
def store(chosen):
    store = store_in_cache("default", "the cache of a result")
    assert store.swap(FACT, None, b"mine", ttl=60)
    return store


@pytest.fixture
def cache(chosen):
    return caches["default"]


@every_cache
@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        True,
        7,
        "",
        "text",
        b"\x00\xff\r\n",
        {"rows": [1, 2.5, None], "at": datetime(2026, 11, 1, tzinfo=timezone.utc)},
        ("taskkit-1", None, 1.5, "id", None, {}),
        "x" * 500_000,
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_value_is_what_the_cache_itself_reads(store, cache, value):
    assert store.trade(FACT, b"mine", VALUE, value, timeout=60)

    assert cache.get(VALUE, "nothing") == value
    assert store.read(FACT) is None


@every_cache
def test_who_has_another_fact_or_none_sets_nothing(store, cache):
    cache.set(VALUE, "old", 60)

    assert not store.trade(FACT, b"another", VALUE, "new", timeout=60)
    assert not store.trade("taskkit:missing", b"mine", VALUE, "new", timeout=60)

    assert (cache.get(VALUE), store.read(FACT), store.read("taskkit:missing")) == ("old", b"mine", None)


@every_cache
def test_a_fact_is_traded_once(store, cache):
    assert store.trade(FACT, b"mine", VALUE, "first", timeout=60)

    assert not store.trade(FACT, b"mine", VALUE, "second", timeout=60)
    assert cache.get(VALUE) == "first"


@every_cache
def test_the_value_is_gone_when_its_time_is_up_and_another_can_be_set(store, cache):
    store.trade(FACT, b"mine", VALUE, "soon gone", timeout=0.3)
    deadline = time.monotonic() + 30
    while cache.get(VALUE) is not None:
        assert time.monotonic() < deadline, "the value is still there"
        time.sleep(0.05)

    assert store.swap(FACT, None, b"again", ttl=60)
    assert store.trade(FACT, b"again", VALUE, "another", timeout=None)
    assert cache.get(VALUE) == "another"


@every_cache
@pytest.mark.parametrize("timeout", [None, 40 * 86_400, 0.001])
def test_a_value_may_last_for_ever_for_longer_than_a_month_or_for_a_moment(store, cache, timeout):
    """To memcached, more than thirty days is a date, and none is for ever; to others none is at once."""
    assert store.trade(FACT, b"mine", VALUE, "value", timeout=timeout)

    if timeout != 0.001:
        assert cache.get(VALUE) == "value"
        assert cache.touch(VALUE, 60)


@every_cache
def test_a_value_that_cannot_be_pickled_leaves_the_fact_and_the_store_as_they_were(store):
    for value in (Unpicklable(), threading.Lock(), lambda: None):
        with pytest.raises(ValueNotKeptError):
            store.trade(FACT, b"mine", VALUE, ("taskkit-1", value), timeout=60)

    assert store.read(FACT) == b"mine", "the store was not paused either"
    assert store.trade(FACT, b"mine", VALUE, "another", timeout=60)


@pytest.mark.live
@pytest.mark.parametrize("chosen", ["memcached"], indirect=True)
def test_a_value_that_is_too_large_leaves_fact_and_store_as_they_were(store, cache):
    cache.set(VALUE, "old", 60)

    with pytest.raises(ValueNotKeptError, match="too large"):
        store.trade(FACT, b"mine", VALUE, "x" * 2_000_000, timeout=60)

    assert (store.read(FACT), cache.get(VALUE)) == (b"mine", None)
    assert store.trade(FACT, b"mine", VALUE, "another", timeout=60)


@every_cache
def test_of_many_who_trade_and_one_who_takes_away_a_single_one_succeeds(store, cache):
    """Over and over, until each of both has been the one, or for some seconds."""
    seen = set()
    deadline = time.monotonic() + 5
    while len(seen) < 2 and time.monotonic() < deadline:
        cache.delete(VALUE)
        store.swap(FACT, None, b"mine", ttl=60)
        done = at_once(
            [lambda store=store, n=n: store.trade(FACT, b"mine", VALUE, n, timeout=60) for n in range(6)]
            + [lambda: store.swap(FACT, b"mine", None, ttl=60)]
        )
        assert sorted(done) == [False] * 6 + [True]
        winner = done.index(True)
        assert cache.get(VALUE) == (winner if winner < 6 else None)
        assert store.read(FACT) is None
        seen.add(winner < 6)


def at_once(calls):
    """What each returned, all of them released at the same moment."""
    barrier, done = threading.Barrier(len(calls)), [None] * len(calls)

    def run(number):
        try:
            barrier.wait(30)
            done[number] = calls[number]()
        except Exception as exc:
            done[number] = exc
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return done


@TABLES
@pytest.mark.parametrize("chosen", ["database"], indirect=True)
class TestInTheDatabase:
    def test_a_rollback_takes_both_along(self, store, cache):
        with transaction.atomic():
            assert store.trade(FACT, b"mine", VALUE, "value", timeout=60)
            transaction.set_rollback(True)

        assert (store.read(FACT), cache.get(VALUE)) == (b"mine", None)

    def test_a_value_that_is_not_kept_does_not_break_the_transaction_around_it(self, store, cache):
        with transaction.atomic():
            with pytest.raises(ValueNotKeptError):
                store.trade(FACT, b"mine", VALUE, Unpicklable(), timeout=60)
            assert store.trade(FACT, b"mine", VALUE, "value", timeout=60)

        assert cache.get(VALUE) == "value"

    def test_a_table_that_is_missing_is_a_store_error(self, store):
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE taskkit_test_cache RENAME TO taskkit_test_cache_away")
        try:
            with pytest.raises(StoreError, match="out of reach"):
                store.trade(FACT, b"mine", VALUE, "value", timeout=60)
        finally:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE taskkit_test_cache_away RENAME TO taskkit_test_cache")


@pytest.mark.live
@pytest.mark.parametrize("kind", ["redis", "memcached"])
def test_a_server_that_ends_is_a_store_error_and_works_again_when_it_is_back(kind, redis_server, memcached_server):
    server = {"redis": type(redis_server), "memcached": type(memcached_server)}[kind]()
    server.start()
    backend, options = "redis.RedisCache", {}
    if kind == "memcached":
        backend, options = "memcached.PyMemcacheCache", {"retry_timeout": 0.1, "dead_timeout": 0.1}
    location = server.url() if kind == "redis" else server.address
    cache = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location, "OPTIONS": options}
    try:
        with override_settings(CACHES={"default": cache}):
            store = store_in_cache("default", "cache").store
            assert store.swap(FACT, None, b"mine", ttl=60)
            server.kill()
            with pytest.raises(StoreError):
                store.trade(FACT, b"mine", VALUE, "value", timeout=60)
            server.start()

            deadline = time.monotonic() + 30
            while not works(store):
                assert time.monotonic() < deadline, "it does not work again"
                time.sleep(0.05)
            assert store.trade(FACT, b"mine", VALUE, "value", timeout=60)
            assert caches["default"].get(VALUE) == "value"
            caches["default"].close()
    finally:
        server.close()


def works(store):
    try:
        return store.swap(FACT, None, b"mine", ttl=60)
    except StoreError:
        return False


@pytest.mark.live
@pytest.mark.parametrize("chosen", ["redis"], indirect=True)
def test_a_store_that_is_in_no_cache_has_no_values(chosen):
    with pytest.raises(TypeError, match="only a store in a cache"):
        shared_store().trade(FACT, b"mine", VALUE, "value", timeout=60)


class TestWhichCacheItIs:
    MEMORY = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}

    def test_it_is_opened_once_for_an_alias_and_is_the_shared_one_if_that_is_there(self):
        with override_settings(CACHES={"default": self.MEMORY, "other": self.MEMORY}, TASKKIT={}):
            assert store_in_cache("default", "cache") is store_in_cache("default", "cache") is shared_store()
            assert store_in_cache("other", "cache") is not shared_store()

    @pytest.mark.parametrize(
        ("alias", "backend", "said"),
        [
            ("reports", "locmem.LocMemCache", "the option is 'reports'; give the alias of a cache ('default')"),
            ("redis://:s3cret@example/0", "locmem.LocMemCache", "the option is redis:…; give the alias of a cache"),
            ("default", "dummy.DummyCache", "DummyCache, which keeps nothing; give a cache on Redis, memcached or"),
            ("default", "filebased.FileBasedCache", "FileBasedCache, which can't tell who wrote first"),
        ],
    )
    def test_what_is_none_is_refused_with_the_remedy(self, alias, backend, said):
        cache = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "/nonexistent/cache"}
        with override_settings(CACHES={"default": cache}), pytest.raises(NoStoreError) as caught:
            store_in_cache(alias, "the option")

        assert said in str(caught.value)
        assert "or a URL" not in str(caught.value), "a URL is for the setting alone"
        assert "s3cret" not in str(caught.value)
        assert isinstance(caught.value, ConfigurationError)
