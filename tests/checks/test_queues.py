"""Queues that lose, block or ignore what is meant."""

import pytest
from kombu import Exchange, Queue

from tests.checks.asking import ids, messages, said
from tests.checks.conftest import RABBITMQ, REDIS

TOPIC = Exchange("tasks", type="topic")


def quorum(name="q", exchange=TOPIC, **arguments):
    return Queue(name, exchange, name, queue_arguments={"x-queue-type": "quorum", **arguments})


def declares(station, *queues, broker=RABBITMQ, **conf):
    station.app.conf.update(broker_url=broker, task_queues=queues, task_default_queue=queues[0].name, **conf)


@pytest.mark.parametrize(("conf", "told"), [({}, 1), ({"task_create_missing_queues": False}, 0)])
def test_w029_a_misspelt_queue_is_made(station, conf, told):
    declares(station, Queue("default"), broker="memory://", **conf)

    assert len(said("W029", deploy=True)) == told
    assert ids() == []


def test_w029_not_where_no_queue_is_declared(station):
    assert said("W029", deploy=True) == []


def test_e030_a_route_to_a_queue_that_may_not_be_made(station):
    declares(station, Queue("default"), broker="memory://", task_create_missing_queues=False)
    station.app.conf.task_routes = {"reports.*": {"queue": "reprots"}}

    @station.app.task(name="reports.make")
    def make(): ...

    [message] = messages()

    assert (message.id, message.obj, message.is_serious()) == ("taskkit.E030", "reports.make", True)
    assert "reprots" in message.msg


def test_e031_lanes_that_are_none(station, settings):
    settings.TASKKIT_LANES = {"default": {"pool": "fibers"}}

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E031", True)


def test_w060_before_deployment_a_queue_that_nobody_reads(station):
    station.app.conf.update(task_queues=[Queue("orders")], task_default_queue="default")

    assert ids() == []
    assert "'default'" in said("W060", deploy=True)[0].msg


@pytest.mark.parametrize("exchange", [Exchange("tasks", type="direct"), None])
def test_w030_a_quorum_queue_on_a_direct_exchange(station, exchange):
    declares(station, quorum(exchange=exchange))

    [message] = messages()

    assert message.id == "taskkit.W030"
    assert "Quorum queues on a direct exchange: q." in message.msg


def test_w030_the_default_queue_of_a_quorum_type(station):
    station.app.conf.update(broker_url=RABBITMQ, task_default_queue_type="quorum")

    assert ids() == ["W030"]


@pytest.mark.parametrize("queue", [quorum(), Queue("q")])
def test_w030_not_on_a_topic_exchange_and_of_a_classic_queue(station, queue):
    declares(station, queue)

    assert ids() == []


def test_w030_to_w032_are_rabbitmqs(station):
    declares(station, quorum(exchange=None), broker=REDIS, worker_detect_quorum_queues=False)

    assert [found for number in ("W030", "W031", "W032") for found in said(number, deploy=True)] == []


@pytest.mark.parametrize(
    ("arguments", "told"), [({}, 1), ({"x-delivery-limit": 5}, 1), ({"x-dead-letter-exchange": ""}, 0)]
)
def test_w031_a_quorum_queue_that_drops_what_was_delivered_too_often(station, arguments, told):
    declares(station, quorum(**arguments))

    assert len(said("W031", deploy=True)) == told


@pytest.mark.parametrize(("queue", "told"), [(quorum(), ["W032"]), (Queue("q"), [])])
def test_w032_quorum_queues_that_workers_shall_not_find(station, queue, told):
    declares(station, queue, worker_detect_quorum_queues=False)

    assert ids() == told


PRIORITIES = {
    "task_default_priority": {"task_default_priority": 5},
    "the route of reports.*": {"task_routes": {"reports.*": {"queue": "q", "priority": 3}}},
    "the route of pay": {"task_routes": [[("pay", {"priority": 3})]]},
}


@pytest.mark.parametrize("where", PRIORITIES)
def test_w033_priorities_that_rabbitmq_does_not_look_at(station, where):
    declares(station, Queue("q"), **PRIORITIES[where])

    [message] = said("W033", deploy=True)

    assert f"({where})" in message.msg


def test_w033_the_priority_of_a_task(station, late):
    declares(station, Queue("q"))
    late("urgent", priority=9)

    assert "task urgent" in said("W033", deploy=True)[0].msg


@pytest.mark.parametrize(
    ("queue", "conf"),
    [
        (Queue("q", queue_arguments={"x-max-priority": 10}), {}),
        (Queue("q"), {"task_queue_max_priority": 10}),
        (quorum(), {}),
        (Queue("q"), {"broker_url": REDIS}),
    ],
)
def test_w033_not_where_priorities_count(station, queue, conf):
    """On Redis they always do: all lists of one priority come before those of the next."""
    declares(station, queue)
    station.app.conf.update(task_default_priority=5, **conf)

    assert said("W033", deploy=True) == []


def test_w033_not_without_priorities(station, late):
    declares(station, Queue("q"))
    late()

    assert said("W033", deploy=True) == []
