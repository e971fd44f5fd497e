"""Who is interrupted in the middle of a conversation with RabbitMQ gets away, though the answer never comes."""

from __future__ import annotations

import threading

import harness
import pytest
from kombu import Connection
from wire import Wire

from django_taskkit.dlq import publisher
from django_taskkit.dlq.publisher import Publisher, broker_connection


@pytest.fixture
def wire(broker, producer):
    """A wire to RabbitMQ, by which the app reaches it."""
    with Connection(broker.url) as there:
        wire = Wire(there.hostname, there.port or 5672)
        producer.conf.broker_url = Connection(broker.url).clone(hostname="127.0.0.1", port=wire.port).as_uri(True)
    yield wire
    wire.cut()


def interrupted(wire, conversation):
    """Interrupt ``conversation`` when the broker has fallen silent; returns what ended it."""
    ended = []

    def talk():
        try:
            with conversation as talking:
                connection = talking._connection if isinstance(talking, Publisher) else talking
                connection.default_channel.queue_declare("", exclusive=True)
                wire.go_dead()
                raise KeyboardInterrupt  # noqa: TRY301 (as the signal does)
        except BaseException as exc:
            ended.append(exc)

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    harness.wait_until(lambda: ended, 60, "the conversation has ended")
    return ended[0]


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
@pytest.mark.parametrize("conversation", [broker_connection, Publisher])
def test_who_is_interrupted_does_not_wait_for_a_farewell(broker, producer, wire, conversation, monkeypatch):
    monkeypatch.setattr(publisher, "ANSWER_TIMEOUT", 600.0)  # so that giving up is not what ends it

    assert isinstance(interrupted(wire, conversation(producer)), KeyboardInterrupt)
