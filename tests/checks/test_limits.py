"""Time limits that do nothing, or that the broker does not wait for."""

from datetime import timedelta

import pytest
from kombu import Exchange, Queue

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.checks.limits import longest_delay
from django_taskkit.routing import Lane, lanes
from tests.checks.asking import ids, messages, said
from tests.checks.conftest import RABBITMQ, REDIS, SQS


def test_e015_the_settings_soft_limit_is_not_below_the_hard_one(station, late):
    late("one")
    late("two")
    station.app.conf.update(task_soft_time_limit=60, task_time_limit=60)

    [message] = messages()

    assert (message.id, message.obj) == ("taskkit.E015", None)
    assert message.msg.startswith("task_soft_time_limit of 60 s is not below task_time_limit of 60 s")


def test_e015_a_tasks_own_limits(station, late):
    late("upside down", soft_time_limit=8, time_limit=2)
    late("right", soft_time_limit=2, time_limit=8)
    late("soft alone", soft_time_limit=8)

    [message] = messages()

    assert (message.id, message.obj) == ("taskkit.E015", "upside down")


def test_e015_a_tasks_own_limit_against_that_of_the_settings(station, late):
    station.app.conf.update(task_soft_time_limit=20, task_time_limit=60)
    late("hurried", time_limit=10)

    assert [message.obj for message in messages()] == ["hurried"]


def test_w022_before_deployment_tasks_without_a_limit(station, late):
    late("hangs")
    late("ends", time_limit=60)

    [message] = said("W022", deploy=True)

    assert message.msg.startswith("Tasks without a time limit: hangs. ")
    assert ids() == []


@pytest.mark.parametrize("conf", [{"task_time_limit": 60}, {"worker_pool": "threads"}])
def test_w022_not_with_a_limit_for_all_and_where_no_pool_could_keep_one(station, late, conf):
    station.app.conf.update(conf)
    late("hangs")

    assert said("W022", deploy=True) == []


@pytest.mark.parametrize(
    ("slow", "told"), [(Lane(tasks=["long"]), ["W022"]), (Lane(tasks=["long"], time_limit=60), [])]
)
def test_w022_knows_the_limit_that_the_workers_of_a_lane_have(station, late, settings, slow, told):
    made = lanes(broker="memory://", namespace="", slow=slow)
    settings.TASKKIT_LANES = made.pop("TASKKIT_LANES")
    station.app.conf.update(made)
    late("long")

    assert [message.id.removeprefix("taskkit.") for message in said("W022", deploy=True)] == told


@pytest.mark.parametrize(
    ("broker", "limit", "told"),
    [
        (RABBITMQ, 1800, True),
        (RABBITMQ, 1700, False),
        (SQS, 1800, True),
        (REDIS, 7200, False),
        ("memory://", 9999, False),
    ],
)
def test_w023_a_limit_that_the_broker_does_not_wait_for(station, late, broker, limit, told):
    """Redis is taskkit.W003's."""
    station.app.conf.update(broker_url=broker, worker_prefetch_multiplier=1)
    late("long", time_limit=limit)
    late("longest", time_limit=limit + 1)
    late("early", time_limit=99999, acks_late=False)

    assert [message.obj for message in said("W023", deploy=True)] == ["longest"] * told


def test_w023_what_sqs_was_told(station, late):
    station.app.conf.update(broker_url=SQS, broker_transport_options={"visibility_timeout": 7200})
    late("long", time_limit=3600)

    assert said("W023", deploy=True) == []


@pytest.mark.parametrize(("multiplier", "told"), [(4, True), (3, False), (1, False), (0, False)])
def test_w025_what_is_fetched_ahead_waits_for_too_long(station, late, multiplier, told):
    station.app.conf.update(broker_url=REDIS, worker_prefetch_multiplier=multiplier)
    late("long", time_limit=1000)
    late("short", time_limit=10)

    found = said("W025", deploy=True)

    assert [message.obj for message in found] == ["long"] * told
    if told:
        assert "4 messages for each process; the last of them may wait for 4000 s" in found[0].msg


def test_w025_knows_the_prefetch_of_a_lane(station, late, settings):
    made = lanes(broker=REDIS, namespace="", slow=Lane(tasks=["long"], prefetch=1, time_limit=1000))
    settings.TASKKIT_LANES = made.pop("TASKKIT_LANES")
    station.app.conf.update(broker_url=REDIS, **made)
    late("long")

    assert said("W025", deploy=True) == []


@pytest.mark.parametrize(
    ("conf", "told"),
    [({"LONG_DELAY": 0}, True), ({"LONG_DELAY": 7200}, True), ({"LONG_DELAY": 600}, False), ({}, False)],
)
def test_w024_delays_of_any_length_are_held_by_workers(station, settings, conf, told):
    settings.TASKKIT = conf
    station.app.conf.broker_url = REDIS

    assert ["LONG_DELAY" in message.msg for message in said("W024", deploy=True)] == [True] * told


def retries(station, name="retries", **options):
    @station.app.task(base=BaseTaskWithRetry, name=name, time_limit=60, **options)
    def run(): ...

    return run


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"retry_backoff_max": 7200, "outbox": False}, True),
        ({"retry_backoff_max": timedelta(hours=2), "outbox": False}, True),
        ({"retry_backoff": False, "default_retry_delay": 7200, "outbox": False}, True),
        ({"retry_backoff_max": 7200, "outbox": False, "max_retries": 0}, False),
        ({"retry_backoff_max": 600, "outbox": False}, False),
        ({"retry_backoff_max": 7200}, False),  # the outbox takes what is beyond half of the timeout
    ],
)
@pytest.mark.parametrize("broker", [REDIS, RABBITMQ])
def test_w024_a_retry_that_waits_for_longer_than_the_broker_does(station, options, told, broker):
    station.app.conf.broker_url = broker
    retries(station, **options)

    assert [message.obj for message in said("W024", deploy=True)] == ["retries"] * told


def test_w024_not_where_rabbitmq_delays_by_itself(station):
    queue = Queue("q", Exchange("t", type="topic"), "q", queue_arguments={"x-queue-type": "quorum"})
    station.app.conf.update(broker_url=RABBITMQ, task_queues=[queue])
    retries(station, retry_backoff_max=7200, outbox=False)

    assert said("W024", deploy=True) == []


def test_the_delay_that_every_task_of_celery_has_says_nothing(station, late):
    assert longest_delay(late("never retries")) == 0
    assert longest_delay(late("retries", autoretry_for=(OSError,))) == 180
    assert longest_delay(late("says so", default_retry_delay=60)) == 60
