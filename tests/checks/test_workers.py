"""What workers are told that does nothing, or harm."""

from types import SimpleNamespace

import pytest
from celery import signals
from kombu import Queue

from django_taskkit.checks import workers
from tests.checks.asking import ids, said
from tests.checks.conftest import RABBITMQ, REDIS, SQS


@pytest.mark.parametrize(
    ("pool", "key", "told"),
    [
        ("threads", "worker_max_tasks_per_child", True),
        ("gevent", "worker_max_memory_per_child", True),
        ("solo", "task_time_limit", True),
        ("threads", "task_soft_time_limit", True),
        ("prefork", "worker_max_tasks_per_child", False),
        ("gevent", "task_time_limit", False),
    ],
)
def test_w034_options_of_processes_for_a_pool_that_has_none(station, pool, key, told):
    station.app.conf.update({"worker_pool": pool, key: 1000})

    assert [f"{key} does nothing in the pool {pool!r}" in found.msg for found in said("W034", deploy=True)] == [
        True
    ] * told
    assert ids() == []


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"worker_eta_task_limit": 20}, 1),
        ({"worker_eta_task_limit": 20, "task_queues": [Queue("now"), Queue("later")]}, 0),
        ({}, 0),
    ],
)
def test_w035_delayed_tasks_keep_others_waiting(station, conf, told):
    station.app.conf.update(conf)

    assert len(said("W035", deploy=True)) == told


ROOT = {"version": 1, "handlers": {"console": {}}, "root": {"handlers": ["console"]}}
NAMELESS = {"version": 1, "handlers": {"console": {}}, "loggers": {"": {"handlers": ["console"]}}}


@pytest.fixture
def logs(monkeypatch):
    """Give Django's ``LOGGING``, without what Django itself does with it."""
    return lambda logging: monkeypatch.setattr(workers, "django_settings", SimpleNamespace(LOGGING=logging))


@pytest.mark.parametrize("logging", [ROOT, NAMELESS])
def test_w036_celery_takes_the_root_loggers_handlers_away(station, logs, logging):
    logs(logging)

    assert "(console)" in said("W036", deploy=True)[0].msg

    station.app.conf.worker_hijack_root_logger = False
    assert said("W036", deploy=True) == []


@pytest.mark.parametrize("logging", [{}, None, {"version": 1, "loggers": {"shop": {"handlers": ["console"]}}}])
def test_w036_not_where_the_root_logger_has_none(station, logs, logging):
    logs(logging)

    assert said("W036", deploy=True) == []


def test_w036_not_where_the_project_sets_logging_up_by_itself(station, logs):
    logs(ROOT)

    def set_up(**kwargs): ...

    signals.setup_logging.connect(set_up)
    try:
        assert said("W036", deploy=True) == []
    finally:
        signals.setup_logging.disconnect(set_up)


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"broker_url": REDIS}, 1),
        ({"broker_url": RABBITMQ, "broker_connection_retry_on_startup": True}, 0),
        ({"broker_url": RABBITMQ, "broker_connection_retry_on_startup": False}, 0),
        ({"broker_url": "memory://"}, 0),
    ],
)
def test_w037_whether_a_worker_waits_for_its_broker(station, conf, told):
    station.app.conf.update(conf)

    assert len(said("W037", deploy=True)) == told


@pytest.mark.parametrize(
    ("kombu", "options", "told"),
    [
        ((5, 6), {}, 1),
        ((5, 6), {"socket_keepalive": True}, 0),
        ((5, 7), {}, 0),
        ((5, 7), {"health_check_interval": 0}, 1),
        ((5, 7), {"health_check_interval": 0, "socket_keepalive": True}, 0),
    ],
)
def test_w038_a_dropped_connection_that_nobody_notices(station, monkeypatch, kombu, options, told):
    monkeypatch.setattr(workers, "KOMBU", kombu)
    station.app.conf.update(broker_url=REDIS, broker_transport_options=options)

    assert len(said("W038", deploy=True)) == told

    station.app.conf.broker_url = RABBITMQ
    assert said("W038", deploy=True) == []


@pytest.mark.parametrize(("protocol", "told"), [(1, 1), (2, 0)])
def test_w039_messages_without_headers(station, protocol, told):
    station.app.conf.task_protocol = protocol

    assert len(said("W039", deploy=True)) == told


@pytest.mark.parametrize("key", ["worker_send_task_events", "task_send_sent_event"])
def test_w040_events_on_sqs(station, key):
    station.app.conf.update({"broker_url": SQS, key: True})
    assert [message.msg.partition(" ")[0] for message in said("W040", deploy=True)] == [key]

    station.app.conf[key] = False
    assert said("W040", deploy=True) == []

    station.app.conf.update({"broker_url": REDIS, key: True})
    assert said("W040", deploy=True) == []
