"""Messages that are given back for ever, dropped, or run twice."""

import pytest
from kombu import Exchange, Queue

from tests.checks.asking import ids, messages, said
from tests.checks.conftest import RABBITMQ, REDIS, SQS

QUORUM = Queue("q", Exchange("t", type="topic"), "q", queue_arguments={"x-queue-type": "quorum"})
WITH_DLX = Queue("q", queue_arguments={"x-dead-letter-exchange": "dead"})


@pytest.mark.parametrize("broker", ["memory://", REDIS, RABBITMQ])
def test_e016_what_kills_its_process_is_given_back_for_ever(station, late, settings, broker):
    settings.TASKKIT = {"DELIVERY_LIMIT": None}
    station.app.conf.broker_url = broker
    late("poison", reject_on_worker_lost=True)
    late("limited", reject_on_worker_lost=True, delivery_limit=2)
    late("dies once")
    late("early", acks_late=False, reject_on_worker_lost=True)

    [message] = messages()

    assert (message.id, message.obj) == ("taskkit.E016", "poison")


def test_e016_a_task_that_takes_its_limit_away(station, late):
    late("poison", reject_on_worker_lost=True, delivery_limit=0)
    late("limited", reject_on_worker_lost=True)

    assert [message.obj for message in messages()] == ["poison"]


def test_e016_not_for_quorum_queues_which_count(station, late):
    station.app.conf.update(broker_url=RABBITMQ, task_queues=[QUORUM], task_default_queue="q")
    late("poison", reject_on_worker_lost=True, delivery_limit=0)

    assert ids() == []


@pytest.mark.parametrize("option", ["acks_on_failure_or_timeout", "acks_on_failure", "acks_on_timeout"])
@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"broker_url": REDIS}, True),
        ({"broker_url": RABBITMQ}, True),
        ({"broker_url": RABBITMQ, "task_queues": [WITH_DLX]}, False),
        ({"broker_url": SQS}, False),
    ],
)
def test_w026_the_broker_drops_what_failed(station, late, option, conf, told):
    station.app.conf.update(conf)
    late("fails", **{option: False})
    late("usual")

    found = said("W026", deploy=True)

    assert [f"{option} is False for 1 tasks, such as fails" in message.msg for message in found] == [True] * told


CANCEL = {"worker_cancel_long_running_tasks_on_connection_loss": True}


@pytest.mark.parametrize(
    ("conf", "told"),
    [({"broker_url": REDIS}, 1), ({"broker_url": REDIS, **CANCEL}, 0), ({"broker_url": "memory://"}, 0)],
)
def test_w027_tasks_that_go_on_without_a_connection(station, late, conf, told):
    station.app.conf.update(conf)
    late()

    assert len(said("W027", deploy=True)) == told


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"broker_url": REDIS}, 1),
        ({"broker_url": SQS}, 1),
        ({"broker_url": RABBITMQ}, 0),
        ({"broker_url": REDIS, "worker_soft_shutdown_timeout": 10}, 0),
    ],
)
def test_w028_a_cold_stop_that_gives_nothing_back(station, late, conf, told):
    station.app.conf.update(conf)
    late()

    assert len(said("W028", deploy=True)) == told


@pytest.mark.parametrize("number", ["W026", "W027", "W028"])
def test_nothing_is_said_of_tasks_that_are_acknowledged_early(station, late, number):
    station.app.conf.broker_url = REDIS
    late("early", acks_late=False, acks_on_failure=False)

    assert said(number, deploy=True) == []
