"""The mutex under which a cache is swapped, and caches that fail in their own ways."""

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from django_taskkit.exceptions import StoreError, ValueNotKeptError
from django_taskkit.stores import cache as module
from django_taskkit.stores.cache import CacheStore


class Failing(LocMemCache):
    """Works until it is told what to raise; or forgets what it is given, without a word."""

    error = None
    forgets = False
    refuses = None

    def get(self, *args, **kwargs):
        if self.error:
            raise self.error
        return super().get(*args, **kwargs)

    def add(self, *args, **kwargs):
        if self.error:
            raise self.error
        return super().add(*args, **kwargs)

    def set(self, *args, **kwargs):
        if self.refuses:
            raise self.refuses
        if not self.forgets:
            super().set(*args, **kwargs)

    def delete(self, *args, **kwargs):
        if self.error:
            raise self.error
        return super().delete(*args, **kwargs)


@pytest.fixture
def cache(request):
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        made = Failing(request.node.name, {})
        made.clear()
        caches["default"] = made
        yield made


@pytest.fixture
def store(cache):
    cache.add("taskkit:a", b"0", 60)
    return CacheStore("default")


def test_an_error_of_the_cache_is_a_store_error(cache, store):
    cache.error = RuntimeError("of a kind of its own")

    with pytest.raises(StoreError, match="'default'.*of a kind of its own"):
        store.read("taskkit:a")
    with pytest.raises(StoreError):
        store.swap("taskkit:new", None, b"1", ttl=60)
    with pytest.raises(StoreError):
        store.swap("taskkit:a", b"0", b"1", ttl=60)
    with pytest.raises(StoreError):
        store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)


def test_a_soft_time_limit_is_no_error_of_the_cache(cache, store):
    cache.error = SoftTimeLimitExceeded()

    with pytest.raises(SoftTimeLimitExceeded):
        store.read("taskkit:a")


def test_a_cache_that_keeps_nothing_and_says_nothing_is_found_out(cache, store):
    cache.forgets = True

    with pytest.raises(StoreError, match="did not keep"):
        store.swap("taskkit:a", b"0", b"1", ttl=60)


def test_a_mutex_that_is_not_given_back_is_a_store_error_for_a_while(cache, store, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    cache.add("taskkit:a.mutex", "someone", 60)

    with pytest.raises(StoreError, match="not free"):
        store.swap("taskkit:a", b"0", b"1", ttl=60)

    cache.delete("taskkit:a.mutex")
    assert store.swap("taskkit:a", b"0", b"1", ttl=60)


def test_the_mutex_is_given_back_whatever_happens(cache, store):
    assert store.swap("taskkit:a", b"0", b"1", ttl=60)
    assert not store.swap("taskkit:a", b"0", b"1", ttl=60)
    assert not store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)
    cache.refuses = RuntimeError("too much")
    with pytest.raises(ValueNotKeptError):
        store.trade("taskkit:a", b"1", "taskkit:value", "a value", timeout=60)
    cache.error = SoftTimeLimitExceeded()
    with pytest.raises(SoftTimeLimitExceeded):
        store.swap("taskkit:a", b"1", b"2", ttl=60)
    cache.error = None

    assert cache.get("taskkit:a.mutex") is None


@pytest.fixture
def stopped(cache, monkeypatch):
    """Who has the mutex stands still until its lease is over; gives what reads the cache all the same."""
    now, get = [0.0], cache.get
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def slow(*args, **kwargs):
        now[0] += module.LEASE
        return get(*args, **kwargs)

    cache.get = slow
    return get


def test_who_was_stopped_while_it_had_the_mutex_does_not_write_any_more(store, stopped):
    with pytest.raises(StoreError, match="took seconds"):
        store.swap("taskkit:a", b"0", b"1", ttl=60)

    assert stopped("taskkit:a") == b"0"
    assert stopped("taskkit:a.mutex"), "it may be someone else's by now"


def test_who_was_stopped_while_it_had_the_mutex_trades_nothing_any_more(store, stopped):
    with pytest.raises(StoreError, match="took seconds"):
        store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)

    assert (stopped("taskkit:a"), stopped("taskkit:value")) == (b"0", None)


def test_of_many_who_write_a_new_value_one_does_in_a_single_step(cache, store):
    cache.add("taskkit:new.mutex", "someone", 60)

    assert store.swap("taskkit:new", None, b"1", ttl=60)
    assert not store.swap("taskkit:new", None, b"2", ttl=60)


def test_who_takes_a_value_away_does_not_mind_that_another_writes_a_new_one_at_once(cache, store):
    """A new value needs no mutex."""
    delete = cache.delete

    def delete_and_lose_the_race(key, *args, **kwargs):
        deleted = delete(key, *args, **kwargs)
        if key == "taskkit:a":
            cache.add(key, b"another's", 60)
        return deleted

    cache.delete = delete_and_lose_the_race

    assert store.swap("taskkit:a", b"0", None, ttl=60)
    assert store.read("taskkit:a") == b"another's"


def test_a_value_that_can_not_be_taken_away_is_a_store_error(cache, store):
    cache.delete = lambda *args, **kwargs: False

    with pytest.raises(StoreError, match="did not keep"):
        store.swap("taskkit:a", b"0", None, ttl=60)


class TestAValueThatTheCacheDoesNotKeep:
    """It is told apart from a cache that is out of reach, and the fact stays."""

    def test_because_it_forgets_without_a_word(self, cache, store):
        cache.forgets = True

        with pytest.raises(ValueNotKeptError, match="'default' doesn't keep the value; it may be too large"):
            store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)
        assert store.read("taskkit:a") == b"0"

    def test_because_it_says_so(self, cache, store):
        cache.refuses = RuntimeError("object too large")

        with pytest.raises(ValueNotKeptError, match="doesn't take the value: RuntimeError: object too large"):
            store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)
        assert store.read("taskkit:a") == b"0"

    def test_an_older_one_of_the_same_name_is_gone(self, cache, store):
        cache.set("taskkit:value", "an old one", 60)
        cache.refuses = RuntimeError("object too large")

        with pytest.raises(ValueNotKeptError):
            store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)
        assert cache.get("taskkit:value") is None

    def test_a_cache_that_then_is_out_of_reach_is_a_store_error(self, cache, store):
        cache.refuses = RuntimeError("connection reset")
        delete = cache.delete

        def break_down(*args, **kwargs):
            cache.delete = delete
            raise RuntimeError("connection refused")

        cache.delete = break_down

        with pytest.raises(StoreError, match="connection refused"):
            store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)
        assert store.read("taskkit:a") == b"0"

    def test_a_soft_time_limit_is_none_of_these(self, cache, store):
        cache.refuses = SoftTimeLimitExceeded()

        with pytest.raises(SoftTimeLimitExceeded):
            store.trade("taskkit:a", b"0", "taskkit:value", "a value", timeout=60)
        assert (store.read("taskkit:a"), cache.get("taskkit:a.mutex")) == (b"0", None)


def test_a_value_of_someone_else_is_a_store_error(cache, store):
    cache.set("taskkit:a", {"theirs": True}, 60)

    with pytest.raises(StoreError, match="none of ours"):
        store.read("taskkit:a")
