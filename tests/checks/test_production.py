"""What is fine in tests, or on a desk, and not in production."""

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.checks.production import places
from tests.checks.asking import ids, said
from tests.checks.conftest import RABBITMQ, REDIS


def test_e021_before_deployment_tasks_that_reach_no_worker(station):
    assert said("E021", deploy=True) == []

    station.app.conf.task_always_eager = True

    assert said("E021", deploy=True)[0].is_serious()
    assert ids() == [], "in tests it is fine"


@pytest.mark.parametrize(("always", "propagates", "told"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_w048_tasks_that_do_not_retry_in_eager_mode(station, always, propagates, told):
    station.app.conf.update(task_always_eager=always, task_eager_propagates=propagates)

    @station.app.task(base=BaseTaskWithRetry, name="retries")
    def retries(): ...

    assert ids() == ["W048"] * told


def test_w048_not_without_a_task_that_retries(station, late):
    station.app.conf.update(task_always_eager=True, task_eager_propagates=True)
    late()

    assert ids() == []


REDIS_CACHE = "django.core.cache.backends.redis.RedisCache"


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("redis://127.0.0.1:1/0", True),
        ("redis://localhost:1", True),
        ("redis://:hunter2@127.0.0.1:1?db=0", True),
        (["redis://elsewhere/0", "redis://127.0.0.1:1/0"], True),
        ("redis://elsewhere/0;redis://127.0.0.1:1/0", True),
        ("redis://127.0.0.1:1/1", False),
        ("redis://127.0.0.1:2/0", False),
        ("redis://elsewhere:1/0", False),
        ("", False),
    ],
)
def test_w049_clearing_the_cache_empties_the_broker(station, settings, location, told):
    settings.CACHES = {"default": {"BACKEND": REDIS_CACHE, "LOCATION": location}}
    station.app.conf.broker_url = REDIS

    found = said("W049", deploy=True)

    assert ["The cache 'default' and the broker" in message.msg for message in found] == [True] * told
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("backend", "broker"),
    [("django.core.cache.backends.filebased.FileBasedCache", REDIS), (REDIS_CACHE, RABBITMQ)],
)
def test_w049_is_about_two_redis(station, settings, backend, broker):
    settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": REDIS}}
    station.app.conf.broker_url = broker

    assert said("W049", deploy=True) == []


@pytest.mark.parametrize("url", ["socket:///run/redis.sock?virtual_host=1", "unix:///run/redis.sock?db=1"])
def test_a_socket_is_a_place(url):
    assert places(url) == {("/run/redis.sock", 0, "1")}
