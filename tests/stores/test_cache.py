"""The mutex under which a cache is swapped, and caches that fail in their own ways."""

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from django.core.cache import caches
from django.core.cache.backends.locmem import LocMemCache
from django.test import override_settings

from django_taskkit.exceptions import StoreError
from django_taskkit.stores import cache as module
from django_taskkit.stores.cache import CacheStore


class Failing(LocMemCache):
    """Works until it is told what to raise; or forgets what it is given, without a word."""

    error = None
    forgets = False

    def get(self, *args, **kwargs):
        if self.error:
            raise self.error
        return super().get(*args, **kwargs)

    def set(self, *args, **kwargs):
        if not self.forgets:
            super().set(*args, **kwargs)


@pytest.fixture
def cache(request):
    with override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}):
        made = Failing(request.node.name, {})
        made.clear()
        caches["default"] = made
        yield made


@pytest.fixture
def store():
    return CacheStore("default")


def test_an_error_of_the_cache_is_a_store_error(cache, store):
    cache.error = RuntimeError("of a kind of its own")

    with pytest.raises(StoreError, match="'default'.*of a kind of its own"):
        store.read("taskkit:a")
    with pytest.raises(StoreError):
        store.swap("taskkit:a", None, b"1", ttl=60)


def test_a_soft_time_limit_is_no_error_of_the_cache(cache, store):
    cache.error = SoftTimeLimitExceeded()

    with pytest.raises(SoftTimeLimitExceeded):
        store.read("taskkit:a")


def test_a_cache_that_keeps_nothing_and_says_nothing_is_found_out(cache, store):
    cache.forgets = True

    with pytest.raises(StoreError, match="did not keep"):
        store.swap("taskkit:a", None, b"1", ttl=60)


def test_a_mutex_that_is_not_given_back_is_a_store_error_for_a_while(cache, store, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    cache.add("taskkit:a.mutex", "someone", 60)

    with pytest.raises(StoreError, match="not free"):
        store.swap("taskkit:a", None, b"1", ttl=60)

    cache.delete("taskkit:a.mutex")
    assert store.swap("taskkit:a", None, b"1", ttl=60)


def test_the_mutex_is_given_back_whatever_happens(cache, store):
    assert store.swap("taskkit:a", None, b"1", ttl=60)
    assert not store.swap("taskkit:a", None, b"1", ttl=60)
    cache.error = SoftTimeLimitExceeded()
    with pytest.raises(SoftTimeLimitExceeded):
        store.swap("taskkit:a", b"1", b"2", ttl=60)
    cache.error = None

    assert cache.get("taskkit:a.mutex") is None


def test_who_was_stopped_while_it_had_the_mutex_does_not_write_any_more(cache, store, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    get = cache.get

    def slow(*args, **kwargs):
        now[0] += module.LEASE
        return get(*args, **kwargs)

    cache.get = slow
    with pytest.raises(StoreError, match="took seconds"):
        store.swap("taskkit:a", None, b"1", ttl=60)

    assert get("taskkit:a") is None
    assert get("taskkit:a.mutex"), "it may be someone else's by now"


def test_a_value_of_someone_else_is_a_store_error(cache, store):
    cache.set("taskkit:a", {"theirs": True}, 60)

    with pytest.raises(StoreError, match="none of ours"):
        store.read("taskkit:a")
