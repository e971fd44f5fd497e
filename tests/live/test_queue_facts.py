"""What queues and workers say of themselves, on real brokers."""

from __future__ import annotations

import socket
import time

import celery
import pytest
from celery import Celery
from harness import wait_until
from kombu.transport import memory

from django_taskkit.exceptions import BrokerUnreachableError
from django_taskkit.observability import queues, workers
from django_taskkit.outbox import hooks

REDIS_LIKE = ("redis", "filesystem")
ON_RABBITMQ = pytest.mark.parametrize("broker", ["rabbitmq", "rabbitmq-quorum"], indirect=True)


@pytest.fixture
def app(producer):
    hooks.install()  # what the app sends says when it was sent
    return producer


@pytest.fixture
def silent_port():
    """A port of loopback that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def send(app, queue, **options):
    app.send_task("nothing", queue=queue, **options)


def one(app, name, **options):
    [state] = queues.look(app, [name], **options)
    return state


@pytest.mark.parametrize("broker", ["redis", "filesystem", "rabbitmq", "rabbitmq-quorum"], indirect=True)
def test_what_waits_is_counted(app, broker):
    assert (one(app, broker.queue).depth or 0) == 0

    for _ in range(3):
        send(app, broker.queue)

    wait_until(lambda: one(app, broker.queue).depth == 3, 10, "three messages")


@pytest.mark.parametrize("broker", REDIS_LIKE, indirect=True)
def test_the_oldest_says_since_when_it_waits(app, broker):
    began = time.time()
    send(app, broker.queue)
    between = time.time()
    send(app, broker.queue)

    oldest = one(app, broker.queue).oldest

    assert time.time() - between <= oldest <= time.time() - began


@pytest.mark.parametrize("broker", REDIS_LIKE, indirect=True)
def test_a_message_whose_time_has_not_come_has_no_age_but_one_behind_it_has(app, broker):
    send(app, broker.queue, countdown=600)
    assert one(app, broker.queue).oldest is None

    send(app, broker.queue)

    state = one(app, broker.queue)
    assert state.depth == 2
    assert 0 <= state.oldest < 60


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize(
    "options",
    [{}, {"global_keyprefix": "shop."}, {"priority_steps": list(range(10)), "sep": ":"}],
    ids=["plain", "with a prefix", "with steps"],
)
def test_the_lists_of_all_priorities_count_with_the_apps_own_steps_and_keys(app, broker, options):
    app.conf.broker_transport_options = options
    for priority in (0, 3, 6, 9):
        send(app, broker.queue, priority=priority)

    state = one(app, broker.queue)

    assert state.depth == 4
    assert state.oldest is not None
    assert state.kind == "list"


@pytest.mark.parametrize("broker", REDIS_LIKE, indirect=True)
def test_the_age_is_that_of_the_oldest_of_all_priorities(app, broker):
    send(app, broker.queue, priority=9)
    waited_from = time.time()
    wait_until(lambda: time.time() > waited_from + 0.3, 5, "some time")
    send(app, broker.queue, priority=0)

    assert one(app, broker.queue).oldest >= 0.3


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_a_worker_holds_does_not_wait(app, broker):
    send(app, broker.queue)
    with broker.connection() as connection:
        channel = connection.channel()
        assert channel.basic_get(broker.queue) is not None

        state = one(app, broker.queue)

    assert (state.depth, state.oldest) == (0, None)


@ON_RABBITMQ
def test_rabbitmq_says_who_reads_and_which_queue_is_missing(app, broker):
    missing = broker.queue_named("never-made")
    send(app, broker.queue)
    wait_until(lambda: one(app, broker.queue).depth == 1, 10, "the message")

    there, gone, again = queues.look(app, [broker.queue, missing, broker.queue_named("also-missing")])

    assert (there.depth, there.consumers, there.kind) == (1, 0, "quorum" if "quorum" in broker.name else "classic")
    assert there.oldest is None
    assert "redelivered" in there.note
    assert (gone.depth, gone.consumers, gone.kind) == (None, None, "missing")
    assert again.kind == "missing"


@ON_RABBITMQ
def test_looking_marks_no_message_as_redelivered(app, broker):
    send(app, broker.queue)
    wait_until(lambda: one(app, broker.queue).depth == 1, 10, "the message")
    for _ in range(3):
        one(app, broker.queue)

    with broker.connection() as connection:
        message = connection.default_channel.basic_get(broker.queue, no_ack=True)

    assert message.delivery_info["redelivered"] is False
    assert (message.headers or {}).get("x-delivery-count", 0) == 0


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_takes_connections_and_says_nothing_is_not_waited_for(silent_port, scheme):
    app = Celery("silent", broker=f"{scheme}://127.0.0.1:{silent_port}//", set_as_current=False, fixups=[])
    began = time.monotonic()

    with pytest.raises(BrokerUnreachableError):
        queues.look(app, ["any"], timeout=1)

    assert time.monotonic() - began < 10


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_not_there_is_named_unreachable(scheme):
    from harness import free_port

    app = Celery("gone", broker=f"{scheme}://127.0.0.1:{free_port()}//", set_as_current=False, fixups=[])

    with pytest.raises(BrokerUnreachableError, match="can't be reached"):
        queues.look(app, ["any"], timeout=20)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_workers_say_what_they_read_and_run(broker, producer, start_worker, django_env):
    ours = start_worker("letters_app", broker, pool="threads", concurrency=3, env=django_env)
    plain = start_worker("plain_app", broker, pool="prefork", concurrency=2)

    [first, second] = sorted(workers.ask(producer, timeout=3, tasks=True), key=lambda worker: worker.pid != ours.pid)

    assert (first.hostname, first.pid, first.pool, first.concurrency) == (
        f"{ours.name}@localhost",
        ours.pid,
        "threads",
        3,
    )
    assert first.queues == (broker.queue,) == second.queues
    assert first.celery_version == celery.__version__
    assert first.release == "live"
    assert abs(first.clock_ahead) <= first.clock_error + 1
    assert "letters.retrying" in first.tasks
    assert (second.hostname, second.pid, second.pool, second.concurrency) == (
        f"{plain.name}@localhost",
        plain.pid,
        "prefork",
        2,
    )
    assert (second.celery_version, second.clock_ahead) == ("", None)
    assert "plain.nothing" in second.tasks


def test_where_nobody_works_nobody_answers(producer):
    assert workers.ask(producer, timeout=0.5) == []


class WithoutFanout(memory.Transport):
    """As Amazon SQS: a message goes to one queue only."""

    implements = memory.Transport.implements.extend(exchange_type=frozenset(["direct", "topic"]))


def test_a_broker_that_reaches_one_worker_at_a_time_cannot_be_asked_for_all():
    def asks(**settings):
        app = Celery("any", set_as_current=False, fixups=[])
        app.conf.update(settings)
        return workers.can_ask(app), workers.ask(app, timeout=0.1)

    assert asks(broker_url="memory://") == (True, [])
    assert asks(broker_url="memory://", broker_transport=f"{__name__}:WithoutFanout") == (False, [])
