"""Cached results while broker or cache are away, and with each kind of result backend, or none."""

from __future__ import annotations

import harness
import pytest
import redis
import result_cache_app as tasks
from django.core.cache import caches as django_caches
from result_caches import BACKENDS, Folder, all_is_done, wait_for_status
from services import Redis, service

from django_taskkit.models import OutboxMessage
from django_taskkit.outbox.presence import watch
from django_taskkit.outbox.relay import Relay
from django_taskkit.results import ResultCache, Status

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


@pytest.fixture(autouse=True)
def in_force(result_caches, settings):
    watch.forget()
    settings.CACHES = result_caches
    yield
    django_caches.close_all()


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path / "tasks")


@pytest.fixture
def start(start_worker, broker, result_env):
    def start(pool="threads", concurrency=2, caches=None, **options):
        return start_worker(
            "result_cache_app", broker, pool=pool, concurrency=concurrency, env=result_env(caches), **options
        )

    return start


class TestWhileTheBrokerIsAway:
    @pytest.fixture
    def broker(self, server):
        with harness.open_broker("redis") as broker:
            broker.settings["broker_url"] = server.url()
            yield broker

    def test_without_the_outbox_it_is_refused_until_the_broker_is_back(self, server, producer, start, folder, settings):
        settings.TASKKIT = {"OUTBOX": "never"}
        cached = ResultCache(tasks.quick)
        server.kill()

        states = [cached.get_or_dispatch(str(folder)) for _ in range(2)]

        assert [(state.status, state.dispatched) for state in states] == [(Status.REFUSED, False)] * 2
        assert states[0].retry_after > 0
        server.start()
        start()
        state = harness.wait_until(lambda: sent(cached, folder), 60, "it is sent")
        assert state.dispatched
        assert wait_for_status(cached, folder, "hit").value == {"run": 1}

    def test_it_may_be_run_here_and_now(self, server, producer, folder, settings):
        settings.TASKKIT = {"OUTBOX": "never"}
        cached = ResultCache(tasks.quick, when_refused="inline")
        server.kill()

        states = [cached.get_or_dispatch(str(folder)) for _ in range(3)]

        assert [(state.status, state.value) for state in states] == [(Status.HIT, {"run": 1})] * 3

    def test_with_the_outbox_it_is_sent_later_and_run_once(self, server, producer, start, folder):
        cached = ResultCache(tasks.quick)
        server.kill()

        states = [cached.get_or_dispatch(str(folder)) for _ in range(3)]

        assert [state.status for state in states] == [Status.PENDING] * 3
        assert [state.dispatched for state in states] == [True, False, False]
        assert OutboxMessage.objects.get().task_id == states[0].task_id
        server.start()
        start()
        relay = Relay(producer, name="test")
        harness.wait_until(
            lambda: (relay.run_once() and False) or not OutboxMessage.objects.exists(), 60, "it is sent", interval=0.3
        )
        assert wait_for_status(cached, folder, "hit").value_id == states[0].task_id
        assert folder.runs() == [states[0].task_id]


def sent(cached, folder):
    state = cached.get_or_dispatch(str(folder))
    return state if state.is_waiting else None


class TestWhileTheCacheIsAway:
    @pytest.fixture
    def caches(self, server, settings):
        settings.CACHES = {"default": {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": server.url()}}
        return settings.CACHES

    def test_it_is_refused_and_then_works_again_by_itself(self, server, caches, broker, producer, start, folder):
        start(caches=caches)
        cached = ResultCache(tasks.quick)
        server.kill()

        states = [cached.get_or_dispatch(str(folder)) for _ in range(50)]

        assert {(state.status, state.dispatched) for state in states} == {(Status.REFUSED, False)}
        assert cached.peek(str(folder)).status is Status.REFUSED
        assert (broker.message_count(), folder.runs()) == (0, [])
        server.start()
        harness.wait_until(lambda: cached.get_or_dispatch(str(folder)).status is Status.HIT, 60, "it works again")
        assert len(folder.runs()) == 1

    def test_a_run_that_goes_on_over_an_outage_is_not_lost(self, server, caches, broker, producer, start, folder):
        start(caches=caches)
        cached = ResultCache(tasks.told, lock_timeout=30)
        sent = cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        server.kill()
        assert cached.get_or_dispatch(str(folder)).status is Status.REFUSED
        server.start()
        state = harness.wait_until(lambda: sees(cached, folder), 60, "the cache is noticed")
        assert (state.status, state.dispatched) == (Status.RUNNING, False)

        folder.touch("go-1")

        assert wait_for_status(cached, folder, "hit").value_id == sent.task_id
        assert len(folder.runs()) == 1

    def test_one_that_ends_meanwhile_is_noticed_and_sent_again(self, server, caches, broker, producer, start, folder):
        start(caches=caches)
        cached = ResultCache(tasks.told, lock_timeout=3)
        cached.get_or_dispatch(str(folder))
        folder.wait_for_runs(1)
        server.kill()
        folder.touch("go-1", "go-2")
        harness.wait_until(lambda: all_is_done(broker), 30, "the task has ended; the worker goes on")
        server.start()

        harness.wait_until(lambda: cached.get_or_dispatch(str(folder)).status is Status.HIT, 90, "there is a value")

        assert cached.peek(str(folder)).value["run"] == len(folder.runs()) <= 2

    def test_on_memcached_which_has_forgotten_all(self, settings, broker, producer, start, folder):
        server = harness.MemcachedServer().start()
        settings.CACHES = {
            "default": {
                "BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache",
                "LOCATION": server.address,
                "OPTIONS": {"retry_timeout": 0.2, "dead_timeout": 0.5},  # a minute, if nobody says otherwise
            }
        }
        try:
            start(caches=settings.CACHES)
            cached = ResultCache(tasks.quick)
            server.kill()
            assert not any(cached.get_or_dispatch(str(folder)).dispatched for _ in range(5))
            assert broker.message_count() == 0
            server.start()

            harness.wait_until(lambda: cached.get_or_dispatch(str(folder)).status is Status.HIT, 60, "it works again")
            assert len(folder.runs()) == 1
        finally:
            django_caches.close_all()
            server.close()


def sees(cached, folder):
    state = cached.get_or_dispatch(str(folder))
    return None if state.status is Status.REFUSED else state


class TestWithEachKindOfResultBackend:
    @pytest.fixture(params=["none", "redis", "django-db"])
    def results(self, request):
        return request.param

    @pytest.fixture
    def results_url(self, results):
        url = service(Redis).claim()
        yield url
        service(Redis).release(url)

    @pytest.fixture
    def producer(self, broker, results, results_url, producer):
        """Also what the worker's settings are."""
        backend = {"none": "disabled://", "redis": results_url, "django-db": "django-db"}[results]
        broker.settings["result_backend"] = producer.conf.result_backend = backend
        return producer

    def test_fifty_values_come_and_the_web_process_subscribes_to_nothing(
        self, results, results_url, producer, start, tmp_path
    ):
        cached = ResultCache(tasks.quick)
        first, *places = [Folder(tmp_path / str(number)) for number in range(50)]
        with redis.Redis.from_url(results_url) as client:
            assert cached.get_or_dispatch(str(first)).dispatched
            before = connections_of(client)
            for place in places:
                assert cached.get_or_dispatch(str(place)).dispatched

            assert connections_of(client) == before
            assert client.pubsub_channels("*celery-task-meta*") == []
        start()

        assert all(wait_for_status(cached, place, "hit").value == {"run": 1} for place in places)

    @pytest.mark.parametrize("results", ["redis"], indirect=True)
    def test_a_task_that_is_sent_the_usual_way_does_subscribe(self, results_url, producer, folder):
        """So the test above can tell."""
        result = tasks.quick.delay(str(folder))

        with redis.Redis.from_url(results_url) as client:
            assert client.pubsub_channels(f"*celery-task-meta-{result.id}")


def connections_of(client):
    """How many the server has, and how many of them are subscribed to something."""
    return client.info("clients")["connected_clients"], sum(one["sub"] != "0" for one in client.client_list())
