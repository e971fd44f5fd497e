"""The harness itself: every broker carries a task to a worker of every pool and leaves nothing behind."""

from __future__ import annotations

import shutil

import harness
import pytest
import redis


@pytest.mark.parametrize("broker", harness.BROKERS, indirect=True)
def test_a_task_reaches_a_worker_and_its_result_comes_back(broker, start_worker):
    start_worker("harness_app", broker)

    result = broker.app().send_task("harness.add", (2, 3))

    assert result.get(timeout=30) == 5
    assert broker.message_count() == 0


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_every_pool_runs_a_task_and_stops_when_told(broker, start_worker, pool):
    worker = start_worker("harness_app", broker, pool=pool, concurrency=2)

    ran_in = broker.app().send_task("harness.pid").get(timeout=30)

    assert (ran_in == worker.pid) == (pool != "prefork")
    worker.stop()
    assert not worker.alive
    assert worker.process.returncode == 0, worker.log_tail()


def test_a_killed_worker_is_gone_at_once(broker, start_worker):
    worker = start_worker("harness_app", broker)

    worker.kill()

    assert not worker.alive


@pytest.mark.parametrize("broker", harness.BROKERS, indirect=True)
def test_messages_wait_in_a_queue_of_the_tests_own(broker):
    broker.publish(b"[]")
    broker.publish(b"[]", queue=broker.queue_named("other"))

    harness.wait_until(lambda: broker.message_count() == 1, 10)
    harness.wait_until(lambda: broker.message_count(broker.queue_named("other")) == 1, 10)


@pytest.mark.parametrize("broker", harness.BROKERS, indirect=True)
def test_cleanup_deletes_the_messages(broker):
    broker.publish(b"[]")
    harness.wait_until(lambda: broker.message_count() == 1, 10)

    broker.cleanup()

    if broker.name != "filesystem":
        assert broker.message_count() == 0
    else:
        assert not broker.folder.exists()


def test_a_condition_that_never_holds_fails_with_the_last_value():
    with pytest.raises(AssertionError, match="three is four: not within 0.1 s; last value: False"):
        harness.wait_until(lambda: 3 == 4, timeout=0.1, message="three is four")


def test_a_missing_service_skips_on_a_laptop_and_fails_in_ci(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no Redis"):
        harness.unavailable("no Redis")

    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no Redis"):
        harness.unavailable("no Redis")


@pytest.mark.skipif(not shutil.which("redis-server"), reason="there is no redis-server binary")
def test_a_redis_of_ones_own_can_have_an_outage():
    server = harness.RedisServer().start()
    client = redis.Redis.from_url(server.url())
    client.set("key", "value")

    server.kill()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    server.start()

    assert client.get("key") is None
    server.close()
