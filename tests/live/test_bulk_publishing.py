"""Many messages in one round trip: the same messages as one by one, and an answer for each of them."""

from __future__ import annotations

import uuid

import harness
import pytest
from kombu import Connection, Queue
from kombu.transport.redis import Channel

from django_taskkit.dlq.bulk.publish import AT_ONCE, LARGE, BulkPublisher
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.envelope import Envelope
from django_taskkit.exceptions import NoQueueError, PublishError

OWN_REDIS = {"broker_transport": "django_taskkit.transports.redis:Transport"}
PREFIXED = {"broker_transport_options": {"global_keyprefix": "prefixed:"}}
KINDS = {
    "redis": ("redis", {}),
    "redis with a prefix": ("redis", PREFIXED),
    "our redis transport": ("redis", {**OWN_REDIS, **PREFIXED}),
    "rabbitmq": ("rabbitmq", {}),
    "rabbitmq-quorum": ("rabbitmq-quorum", {}),
    "filesystem": ("filesystem", {}),
}


@pytest.fixture
def kind(request):
    name, settings = KINDS[request.param]
    with harness.open_broker(name) as broker:
        broker.settings.update(settings)
        yield broker


@pytest.fixture
def redis():
    with harness.open_broker("redis") as broker:
        yield broker


@pytest.fixture
def rabbitmq():
    with harness.open_broker("rabbitmq") as broker:
        yield broker


def envelope(broker, number=0, **options):
    headers = {
        "id": f"id-{number}",
        "task": "any",
        "retries": 0,
        "timelimit": [None, 3.5],
        "stamps": {},
        "tenant": "khách",
        **options.pop("headers", {}),
    }
    defaults = {
        "body": b"[[%d], {}, {}]" % number,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": headers,
        "properties": {"correlation_id": f"id-{number}", "priority": 0, "delivery_mode": 2, "reply_to": "r"},
        "queue": broker.queue,
        "routing_key": options.get("queue", broker.queue),
    }
    return Envelope(**{**defaults, **options})


def taken(broker, queue=None):
    """All messages of a queue, in their order."""
    found = []
    app = broker.app()
    with app.connection_for_read() as connection:
        bound = app.amqp.queues.select_add(queue or broker.queue)(connection.default_channel)
        while message := bound.get(no_ack=True):
            found.append(message)
    return found


def facts(message):
    others = ("delivery_tag", "application_headers")  # the latter is what AMQP calls the headers
    properties = {name: value for name, value in message.properties.items() if name not in others}
    headers = {name: value for name, value in message.headers.items() if name != "taskkit_sent_at"}
    return message.body, message.content_type, message.content_encoding, headers, properties


@pytest.mark.parametrize("kind", KINDS, indirect=True)
def test_messages_are_the_same_as_one_by_one_and_in_their_order(kind):
    envelopes = [envelope(kind, number) for number in range(30)]
    envelopes.append(
        envelope(
            kind, 30, body=b"\x80\x02}q\x00.", content_type="application/x-python-serialize", content_encoding="binary"
        )
    )
    envelopes.append(envelope(kind, 31, properties={}, headers={"nested": {"a": [1, None, True]}, "big": 2**40}))

    with BulkPublisher(kind.app()) as publisher:
        publisher.connect()
        for one in envelopes:
            publisher.publish(one)
        expected = [facts(message) for message in taken(kind)]
        outcomes = publisher.publish_many(envelopes)
    found = [facts(message) for message in taken(kind)]

    assert outcomes == [None] * 32
    assert found == expected
    assert publisher.at_once == (20 if kind.name == "filesystem" else AT_ONCE)


@pytest.mark.parametrize("kind", ["redis", "our redis transport"], indirect=True)
def test_priorities_are_kept(kind):
    kind.settings["broker_transport_options"] = {"priority_steps": [0, 3, 6, 9]}
    envelopes = [envelope(kind, number, properties={"priority": number}) for number in range(10)]

    with BulkPublisher(kind.app()) as publisher:
        publisher.connect()
        for one in envelopes:
            publisher.publish(one)
        expected = [message.headers["id"] for message in taken(kind)]
        publisher.publish_many(envelopes)

    assert [message.headers["id"] for message in taken(kind)] == expected


@pytest.mark.parametrize("kind", ["our redis transport"], indirect=True)
def test_the_bell_of_our_own_transport_is_rung(kind):
    with BulkPublisher(kind.app()) as publisher:
        publisher.connect()
        publisher.publish_many([envelope(kind)])
        channel = publisher._connection.default_channel
        rung = channel.client.exists(channel._prefixed(channel._bell(kind.queue)))

    assert rung == 1


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"], indirect=True)
def test_one_that_is_large_or_odd_goes_with_the_others(kind):
    envelopes = [
        envelope(kind, 0),
        envelope(kind, 1, body=b"x" * (LARGE + 1), content_type="application/data", content_encoding="binary"),
        envelope(kind, 2, properties={"priority": 0, "app_id": "shop"}),
        envelope(kind, 3),
    ]

    with BulkPublisher(kind.app()) as publisher:
        publisher.connect()
        outcomes = publisher.publish_many(envelopes)

    assert outcomes == [None] * 4
    assert {message.headers["id"] for message in taken(kind)} == {"id-0", "id-1", "id-2", "id-3"}


@pytest.mark.parametrize("kind", ["redis", "rabbitmq"], indirect=True)
def test_one_that_can_not_be_encoded_does_not_fail_the_others(kind):
    envelopes = [envelope(kind, number) for number in range(5)]
    envelopes[2] = envelope(kind, 2, headers={"odd": object()})

    with BulkPublisher(kind.app()) as publisher:
        publisher.connect()
        outcomes = publisher.publish_many(envelopes)

    assert [type(outcome) for outcome in outcomes] == [type(None)] * 2 + [PublishError] + [type(None)] * 2
    assert "the broker refused the message" in str(outcomes[2])
    assert len(taken(kind)) == 4


def test_a_queue_that_is_no_list_does_not_fail_the_others(redis):
    other = redis.queue_named("other")
    envelopes = [envelope(redis, number, queue=(redis.queue, other)[number % 2]) for number in range(6)]
    with redis.connection() as connection:
        connection.default_channel.client.set(other, "no list")

    with BulkPublisher(redis.app()) as publisher:
        publisher.connect()
        outcomes = publisher.publish_many(envelopes)

    assert [outcome is None for outcome in outcomes] == [True, False] * 3
    assert "WRONGTYPE" in str(outcomes[1])
    assert len(taken(redis)) == 3


def test_a_queue_that_was_deleted_meanwhile_is_named(rabbitmq):
    """Without the mandatory flag RabbitMQ would take the messages and drop them."""
    other = rabbitmq.queue_named("other")
    envelopes = [envelope(rabbitmq, number, queue=(rabbitmq.queue, other)[number % 2]) for number in range(6)]

    with rabbitmq.connection() as connection:
        Queue(other, channel=connection.default_channel).declare()

    with BulkPublisher(rabbitmq.app()) as publisher:
        publisher.connect()
        assert publisher.publish_many(envelopes) == [None] * 6
        with rabbitmq.connection() as connection:
            connection.default_channel.queue_delete(other)
        outcomes = publisher.publish_many(envelopes)

    assert [type(outcome) for outcome in outcomes] == [type(None), NoQueueError] * 3
    assert str(outcomes[1]) == f"the broker has no queue for the routing key {other!r}"
    assert len(taken(rabbitmq)) == 6


def test_what_a_full_queue_rejects_is_refused(rabbitmq):
    name = rabbitmq.queue_named("full")
    full = Queue(name, routing_key=name, queue_arguments={"x-max-length": 3, "x-overflow": "reject-publish"})
    app = rabbitmq.app()
    app.amqp.queues.add(full)

    with BulkPublisher(app) as publisher:
        publisher.connect()
        outcomes = publisher.publish_many([envelope(rabbitmq, number, queue=name) for number in range(50)])

    refused = [outcome for outcome in outcomes if outcome is not None]
    assert {str(outcome) for outcome in refused} == {"the broker refused the message: basic.nack"}
    assert len(refused) == 50 - rabbitmq.message_count(name)


def test_a_queue_that_is_there_with_other_arguments_is_refused_and_the_rest_is_sent(rabbitmq):
    name = rabbitmq.queue_named("other")
    with rabbitmq.connection() as connection:
        Queue(name, max_length=3, channel=connection.default_channel).declare()
    envelopes = [envelope(rabbitmq, number, queue=(rabbitmq.queue, name)[number % 2]) for number in range(4)]
    app = rabbitmq.app()
    app.amqp.queues.select_add(name)

    with BulkPublisher(app) as publisher:
        publisher.connect()
        outcomes = publisher.publish_many(envelopes)

    assert [outcome is None for outcome in outcomes] == [True, False] * 2
    assert "PRECONDITION_FAILED" in str(outcomes[1])


def test_a_redis_that_goes_away_is_told_for_all(redis):
    server = harness.RedisServer()
    if not server.installed:
        harness.unavailable("there is no redis-server to stop")
    server.start()
    try:
        redis.settings["broker_url"] = server.url()
        with BulkPublisher(redis.app()) as publisher:
            publisher.connect()
            assert publisher.publish_many([envelope(redis)]) == [None]
            server.kill()
            outcomes = publisher.publish_many([envelope(redis, number) for number in range(3)])
    finally:
        server.close()

    assert [type(outcome) for outcome in outcomes] == [BrokerUnreachableError] * 3


def test_a_connection_that_rabbitmq_closes_is_told_for_all(rabbitmq):
    with BulkPublisher(rabbitmq.app()) as publisher:
        publisher.connect()
        assert publisher.publish_many([envelope(rabbitmq)]) == [None]
        publisher._connection.connection.transport.sock.shutdown(2)
        outcomes = publisher.publish_many([envelope(rabbitmq, number) for number in range(3)])

    assert [type(outcome) for outcome in outcomes] == [BrokerUnreachableError] * 3


def test_a_redis_client_that_would_try_again_by_itself_gets_them_one_by_one(redis, monkeypatch):
    """Its second attempt could send what had arrived with the first."""
    pool = Channel._get_pool

    def trying_again(channel, *args, **options):
        made = pool(channel, *args, **options)
        made.connection_kwargs["retry_on_error"] = [OSError]
        return made

    monkeypatch.setattr(Channel, "_get_pool", trying_again)
    with BulkPublisher(redis.app()) as publisher:
        publisher.connect()
        outcomes = publisher.publish_many([envelope(redis)])

    assert (publisher.at_once, outcomes) == (20, [None])


def test_messages_of_an_exchange_go_there_one_by_one(rabbitmq):
    exchange = rabbitmq.queue_named("exchange")
    queue = rabbitmq.queue_named(f"bound-{uuid.uuid4().hex[:6]}")
    with rabbitmq.connection() as connection:
        connection.default_channel.exchange_declare(exchange, "topic")
        connection.default_channel.queue_declare(queue)
        connection.default_channel.queue_bind(queue, exchange, "orders.#")
    envelopes = [envelope(rabbitmq, n, queue="", exchange=exchange, routing_key="orders.new") for n in range(2)]

    with BulkPublisher(rabbitmq.app()) as publisher:
        publisher.connect()
        assert publisher.publish_many([*envelopes, envelope(rabbitmq, 9)]) == [None] * 3

    with Connection(rabbitmq.url) as connection:
        assert connection.default_channel.queue_declare(queue, passive=True).message_count == 2
        connection.default_channel.exchange_delete(exchange)
