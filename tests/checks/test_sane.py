"""A project that nothing is wrong with hears nothing, and no check reaches for a server."""

import time

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.checks import all_messages
from django_taskkit.routing import Lane, by_priority, by_workload, lanes
from tests.checks.asking import deployment, messages
from tests.checks.conftest import RABBITMQ, REDIS, SQS

BROKERS = [REDIS, RABBITMQ, SQS, "filesystem://", "memory://"]


def has_tasks(app):
    @app.task(name="plain")
    def plain(): ...

    @app.task(name="reports.make", base=BaseTaskWithRetry)
    def retried(): ...


@pytest.mark.parametrize("broker", BROKERS)
def test_a_project_that_names_its_broker_and_no_more(configured, module, broker):
    has_tasks(configured(module(CELERY_BROKER_URL=broker)))

    assert messages() == []


@pytest.mark.parametrize("broker", BROKERS)
def test_a_project_of_before_celery_4(configured, module, broker):
    has_tasks(configured(module(BROKER_URL=broker, CELERY_TASK_SERIALIZER="json", CELERYD_CONCURRENCY=4), None))

    assert messages() == []


def declared(preset, broker):
    if preset == "lanes":
        return lanes(
            broker=broker,
            default=Lane(time_limit=60),
            reports=Lane(tasks=["reports.*"], prefetch=1, time_limit=1700),
            media=Lane(pool="prefork", time_limit=600, max_tasks_per_child=100),
        )
    return lanes(broker=broker, **{"by_workload": by_workload, "by_priority": by_priority}[preset]())


ADVICE = {
    "CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP": True,
    "CELERY_TASK_ACKS_LATE": True,
    "CELERY_TASK_SOFT_TIME_LIMIT": 45,
    "CELERY_TASK_TIME_LIMIT": 60,
    "CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS": True,
    "CELERY_WORKER_PREFETCH_MULTIPLIER": 1,
    "CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT": 10,
}
"""What `check --deploy` asks of a project beside its lanes."""


@pytest.mark.parametrize("preset", ["lanes", "by_workload", "by_priority"])
@pytest.mark.parametrize("broker", BROKERS)
def test_what_lanes_makes(configured, module, settings, preset, broker):
    made = declared(preset, broker)
    settings.TASKKIT_LANES = made["TASKKIT_LANES"]
    settings.TASKKIT = {"INTAKE_QUEUES": ["taskkit.dead"]}
    has_tasks(configured(module(CELERY_BROKER_URL=broker, **made)))

    assert messages() == []


@pytest.mark.parametrize("broker", [REDIS, RABBITMQ, "filesystem://"])
def test_what_lanes_makes_with_the_advice_for_production(configured, module, settings, broker, tmp_path):
    ours = {"redis": "redis", "filesystem": "filesystem"}.get(broker.partition(":")[0])
    transport = {"CELERY_BROKER_TRANSPORT": f"django_taskkit.transports.{ours}:Transport"} if ours else {}
    made = lanes(broker=broker, reports=Lane(tasks=["reports.*"], prefetch=1, time_limit=1700, soft_time_limit=1600))
    more = {"redis": {"socket_keepalive": True}, "filesystem": {"folder": str(tmp_path)}}
    made["CELERY_BROKER_TRANSPORT_OPTIONS"] |= more.get(ours, {})
    settings.TASKKIT_LANES = made["TASKKIT_LANES"]
    settings.TASKKIT = {"INTAKE_QUEUES": ["taskkit.dead"]}
    has_tasks(configured(module(CELERY_BROKER_URL=broker, **ADVICE, **transport, **made)))

    assert deployment() == []


def test_no_check_connects(configured, module, monkeypatch, settings):
    def connect(*args, **kwargs):
        raise AssertionError("it connected")

    monkeypatch.setattr("socket.socket.connect", connect)
    for broker in (REDIS, RABBITMQ, "sentinel://127.0.0.1:1"):
        made = lanes(broker=RABBITMQ if broker == RABBITMQ else REDIS)
        settings.TASKKIT_LANES = made["TASKKIT_LANES"]
        app = configured(module(CELERY_BROKER_URL=broker, CELERY_RESULT_BACKEND="redis://127.0.0.1:1/1", **made))
        has_tasks(app)
        assert all_messages()


def test_they_are_quick(station):
    """Of a thousand tasks: `manage.py check` is run by each command."""
    for number in range(1000):
        station.app.task(name=f"task-{number}", acks_late=True, priority=None)(lambda: None)
    all_messages()  # imports what it needs

    start = time.process_time()
    all_messages(deploy=False)

    assert time.process_time() - start < 5
