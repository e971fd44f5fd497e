"""Which queues the worker of any lane makes; that it does is in tests/live/test_lanes.py."""

from types import SimpleNamespace

import pytest

from django_taskkit.routing.declaring import DeclareLanes, dead_letter_queues


@pytest.mark.parametrize("kind", ["quorum", "classic"])
def test_dead_messages_have_one_queue_of_the_same_kind(lay, kind):
    app = lay(broker="amqp://", queue_type=kind)

    [queue] = dead_letter_queues(app)

    assert (queue.name, queue.exchange.name) == ("taskkit.dead", "")
    assert queue.queue_arguments == {"x-queue-type": kind}
    assert queue.name not in app.amqp.queues.consume_from, "no worker reads it"


def test_what_goes_by_an_exchange_of_the_projects_is_its_own_business(station):
    station.app.conf.task_queues = {
        "a": {"queue_arguments": {"x-dead-letter-exchange": "dlx", "x-dead-letter-routing-key": "dead"}},
        "b": {"queue_arguments": {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"}},
        "c": {},
    }

    assert dead_letter_queues(station.app) == []


def test_only_rabbitmq_needs_it_and_only_where_there_are_lanes(lay, station, settings):
    def included():
        return DeclareLanes.include_if(None, SimpleNamespace(app=station.app))

    lay(broker="amqp://")
    assert included()

    station.app.conf.broker_url = "memory://"
    assert not included()

    station.app.conf.broker_url = "amqp://"
    del settings.TASKKIT_LANES
    assert not included()


def test_lanes_that_are_broken_stop_no_worker(station, settings, caplog):
    station.app.conf.broker_url = "amqp://"
    settings.TASKKIT_LANES = {"x": 3}

    assert not DeclareLanes.include_if(None, SimpleNamespace(app=station.app))
    assert "the lanes' queues are not declared: TASKKIT_LANES is" in caplog.text
