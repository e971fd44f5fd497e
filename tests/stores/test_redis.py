"""A Redis that is away, or doesn't answer, costs little and is noticed when it is back."""

import socket
import time

import pytest
from django.test import override_settings
from redis import Redis

from django_taskkit.exceptions import StoreError
from django_taskkit.stores.opening import shared_store
from django_taskkit.stores.redis import RedisStore

pytestmark = pytest.mark.live


@pytest.fixture
def server(redis_server):
    """A Redis that the test may end."""
    server = type(redis_server)()
    server.start()
    yield server
    server.close()


@pytest.fixture
def deaf():
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"redis://127.0.0.1:{listening.getsockname()[1]}/0"


def test_a_server_that_ends_is_a_store_error_and_works_again_when_it_is_back(server):
    store = RedisStore.at(server.url())
    assert store.swap("taskkit:a", None, b"1", ttl=60)

    server.kill()
    with pytest.raises(StoreError, match="taskkit:a is out of reach"):
        store.read("taskkit:a")
    with pytest.raises(StoreError):
        store.swap("taskkit:a", None, b"1", ttl=60)

    server.start()
    assert store.swap("taskkit:a", None, b"2", ttl=60)
    assert store.read("taskkit:a") == b"2"


def test_a_server_that_does_not_answer_is_given_up_soon_and_then_left_alone(deaf):
    with override_settings(TASKKIT={"SHARED_STORE": deaf}):
        started = time.monotonic()
        for _ in range(200):
            with pytest.raises(StoreError):
                shared_store().read("taskkit:a")
        took = time.monotonic() - started

    assert 0.5 < took < 10


def test_a_cache_without_time_limits_has_them_here(deaf):
    cache = {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": deaf}
    with override_settings(CACHES={"default": cache}, TASKKIT={}):
        started = time.monotonic()
        with pytest.raises(StoreError):
            shared_store().read("taskkit:a")

    assert time.monotonic() - started < 10


def test_a_script_that_the_server_has_forgotten_is_sent_again(redis_url):
    store = RedisStore.at(redis_url)
    assert store.swap("taskkit:a", None, b"1", ttl=60)

    with Redis.from_url(redis_url) as client:
        client.script_flush()

    assert store.swap("taskkit:a", b"1", b"2", ttl=60)


def test_a_value_of_another_kind_is_a_store_error(redis_url):
    with Redis.from_url(redis_url) as client:
        client.rpush("taskkit:list", "1")

    with pytest.raises(StoreError, match="WRONGTYPE"):
        RedisStore.at(redis_url).read("taskkit:list")


def test_no_key_outlives_its_time(redis_url):
    RedisStore.at(redis_url).swap("taskkit:a", None, b"1", ttl=90.5)

    with Redis.from_url(redis_url) as client:
        assert 80_000 < client.pttl("taskkit:a") <= 90_500


@pytest.mark.parametrize("chosen", ["redis_cache", "django_redis"], indirect=True)
def test_in_a_cache_on_redis_keys_have_the_prefix_of_the_cache_and_plain_values(store, redis_url):
    store.swap("taskkit:a", None, b"plain", ttl=60)

    with Redis.from_url(redis_url) as client:
        (key,) = client.keys()
        value = client.get(key)
    assert key in (b"site:1:taskkit:a", b":1:taskkit:a")
    assert value == b"plain"
