"""`manage.py taskkit doctor` on brokers and result backends with a fault that was planted."""

from __future__ import annotations

import json
import socket
import time

import kombu
import pytest
import redis as redis_client
from examining import examined, redis_server
from harness import free_port, wait_until
from kombu import Queue

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def use(producer):
    """``use(server)``: the app's broker and results are on that Redis."""

    def use(server, **settings):
        producer.conf.update(broker_url=server.url(), result_backend=server.url(), **settings)
        return producer

    return use


def send(app, queue):
    with app.connection_for_write() as connection:
        app.send_task("doctor.work", queue=queue, connection=connection)


def test_a_redis_that_evicts_and_forgets_is_an_error(use):
    evicting = ("CONFIG SET maxmemory 100mb", "CONFIG SET maxmemory-policy allkeys-lru")
    with redis_server(*evicting) as server:
        use(server)

        code, found = examined("--only", "redis")

    assert code == 1
    assert found["redis-eviction"]["level"] == found["redis-persistence"]["level"] == "error"
    assert "allkeys-lru" in found["redis-eviction"]["text"]
    assert found["redis-memory"]["level"] == "ok"


def test_a_redis_that_is_nearly_full_is_an_error(use):
    with redis_server(durable=True) as server:
        use(server)
        with redis_client.Redis(port=server.port) as client:
            client.config_set("maxmemory", int(client.info()["used_memory"] * 1.02))

        code, found = examined("--only", "redis")

    assert (code, found["redis-memory"]["level"]) == (1, "error")


def test_what_a_redis_does_not_tell_is_unknown_and_no_fault(use):
    user = "ACL SETUSER shop on >secret ~* &* +@all -info -config -time"
    with redis_server(user) as server:
        app = use(server)
        url = f"redis://shop:secret@127.0.0.1:{server.port}/0"
        app.conf.update(broker_url=url, result_backend=url)

        code, found = examined("--only", "redis", "--only", "broker")

    assert code == 0
    assert found["redis-eviction"]["level"] == found["redis-persistence"]["level"] == "unknown"
    assert "secret" not in json.dumps(found)
    assert found["broker"]["level"] == "ok"


def test_messages_in_lists_that_nobody_reads_are_found(use, broker):
    with redis_server(durable=True) as server:
        app = use(server, broker_transport_options={"priority_steps": list(range(10))})
        app.send_task("doctor.work", priority=5)
        app.pool.force_close_all()
        app.conf.broker_transport_options = {}

        code, found = examined("--only", "redis")

    assert code == 1
    assert broker.queue in found["redis-stranded"]["text"]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_queue_that_fills_without_a_consumer_is_an_error(producer, broker):
    assert examined("--only", "queues")[1]["queue-unread"]["level"] == "warning"

    send(producer, broker.queue)

    def is_error():
        code, found = examined("--only", "queues")
        return code == 1 and found["queue-unread"]["level"] == "error" and "1 messages" in found["queue-unread"]["text"]

    wait_until(is_error, 10, "the finding")


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_queue_that_is_of_another_type_than_declared_is_an_error(producer, broker):
    with broker.connection() as connection:
        Queue(broker.queue, queue_arguments={"x-queue-type": "classic"})(connection.default_channel).queue_declare()
    producer.conf.task_queues = [Queue(broker.queue, queue_arguments={"x-queue-type": "quorum"})]

    code, found = examined("--only", "rabbitmq")

    assert code == 1
    assert "x-queue-type" in found["rabbitmq-arguments"]["text"]
    assert found["rabbitmq-version"]["level"] == "ok"


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_an_exchange_of_another_type_than_declared_is_an_error(producer, broker):
    name = broker.queue_named("tasks")
    with broker.connection() as connection:
        kombu.Exchange(name, type="direct")(connection.default_channel).declare()
    producer.conf.task_queues = [Queue(broker.queue, kombu.Exchange(name, type="topic"), broker.queue)]

    code, found = examined("--only", "rabbitmq")

    assert code == 1
    assert f"exchange {name!r}" in found["rabbitmq-arguments"]["text"]


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_trying_a_broker_leaves_nothing_behind(producer, broker):
    def left():
        if broker.name == "redis":
            with redis_client.Redis.from_url(broker.url) as client:
                return [key for key in client.keys("*taskkit.doctor*") if not key.endswith(b"bell")]
        return []

    code, found = examined("--only", "broker")

    assert (code, found["broker"]["level"], left()) == (0, "ok", [])


def test_a_broker_that_is_down_is_one_error_and_the_rest_unknown(producer):
    producer.conf.update(broker_url=f"redis://127.0.0.1:{free_port()}/0")
    only = ("broker", "redis", "queues", "workers")

    code, found = examined("--timeout", "10", *(f"--only={name}" for name in only))

    assert code == 1
    assert {id: finding["level"] for id, finding in found.items()} == {
        "broker": "error",
        "redis": "unknown",
        "queues": "unknown",
        "workers": "unknown",
    }


def test_a_result_backend_that_is_down_is_an_error(producer):
    with redis_server() as server:
        producer.conf.result_backend = server.url()
        assert examined("--only", "results")[1]["results"]["level"] == "ok"
        server.kill()

        code, found = examined("--only", "results", "--timeout", "5")

    assert (code, found["results"]["level"]) == (1, "error")


def test_results_that_never_expire_are_a_warning(producer):
    producer.conf.result_expires = 0

    code, found = examined("--only", "results", "--fail-on", "warning")

    assert (code, found["result-expiry"]["level"]) == (1, "warning")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_takes_connections_and_says_nothing_costs_the_time_once(producer, scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        producer.conf.broker_url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}//"
        began = time.monotonic()

        code, found = examined("--timeout", "2", "--only", "broker", "--only", "queues", "--only", "workers")

    assert time.monotonic() - began < 20
    assert (code, found["broker"]["level"]) == (1, "error")
    assert found["queues"]["level"] == found["workers"]["level"] == "unknown"
