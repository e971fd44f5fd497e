"""What check --deploy says of the broker's transport."""

import pytest

from django_taskkit.transports.redis import Transport
from tests.checks.asking import deployment


def test_w002_redis_is_read_in_two_steps(station):
    station.app.conf.broker_url = "redis://127.0.0.1:1/0"

    [message] = deployment("taskkit.W002")
    assert 'CELERY_BROKER_TRANSPORT = "django_taskkit.transports.redis:Transport"' in message.hint
    assert "broker_transport" in message.hint
    assert "docs/" not in message.hint

    station.app.conf.broker_transport = "django_taskkit.transports.redis:Transport"
    assert deployment("taskkit.W002") == []


def test_w003_a_task_that_may_run_longer_than_redis_hides_its_message(station):
    station.app.conf.update(broker_url="redis://127.0.0.1:1/0", broker_transport_options={"visibility_timeout": 60})

    @station.app.task(name="long", acks_late=True, time_limit=120)
    def long(): ...

    @station.app.task(name="short", acks_late=True, time_limit=30)
    def short(): ...

    [message] = deployment("taskkit.W003")
    assert (message.obj, message.msg[:23]) == ("long", "Its time_limit of 120 s")


def test_w003_is_one_line_where_the_limit_is_the_settings(station):
    station.app.conf.update(
        broker_url="redis://127.0.0.1:1/0",
        broker_transport_options={"visibility_timeout": 60},
        task_time_limit=120,
        task_acks_late=True,
    )

    @station.app.task(name="one")
    def one(): ...

    @station.app.task(name="two")
    def two(): ...

    @station.app.task(name="own", time_limit=240)
    def own(): ...

    @station.app.task(name="short", time_limit=30)
    def short(): ...

    setting, task = deployment("taskkit.W003")
    assert (setting.obj, setting.msg[:30]) == (None, "The task_time_limit of 120 s i")
    assert (task.obj, task.msg[:23]) == ("own", "Its time_limit of 240 s")


def test_w003_is_silent_of_celerys_tasks_and_of_the_relay(station):
    station.app.conf.update(
        broker_url="redis://127.0.0.1:1/0",
        broker_transport_options={"visibility_timeout": 60},
        task_time_limit=120,
        task_acks_late=True,
    )

    # Tasks that other tests share with every app.
    for name in [name for name in station.app.tasks if not name.startswith(("celery.", "taskkit."))]:
        station.app.tasks.unregister(name)

    assert {"celery.chord_unlock", "taskkit.relay"} <= set(station.app.tasks)
    assert deployment("taskkit.W003") == []


def test_w004_rabbitmq_without_confirms(station):
    station.app.conf.update(broker_url="amqp://127.0.0.1:1//", broker_transport_options={"confirm_publish": False})

    assert [message.id for message in deployment("taskkit.W004")] == ["taskkit.W004"]


def test_w003_a_time_to_be_visible_that_says_nothing_is_the_default(station):
    station.app.conf.update(broker_url="redis://127.0.0.1:1/0", broker_transport_options={"visibility_timeout": None})

    @station.app.task(name="long", acks_late=True, time_limit=3600)
    def long(): ...

    assert [message.obj for message in deployment("taskkit.W003")] == ["long"]


def test_w002_not_for_a_transport_that_builds_on_ours(station):
    station.app.conf.update(
        broker_url="redis://127.0.0.1:1/0", broker_transport="tests.checks.test_transports:OwnTransport"
    )

    assert deployment("taskkit.W002") == []


def test_w002_is_about_the_broker_that_workers_read_from(station):
    station.app.conf.update(broker_read_url="redis://127.0.0.1:1/0", broker_write_url="amqp://127.0.0.1:1//")

    assert [message.id for message in deployment("taskkit.W002")] == ["taskkit.W002"]


def test_a_transport_that_is_not_installed_ends_no_check(station):
    station.app.conf.broker_url = "nonsense://127.0.0.1"

    assert deployment("taskkit.W002", "taskkit.W003", "taskkit.W004") == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"broker_transport": "django_taskkit.transports.reddis:Transport"}, "No module named"),
        ({"broker_transport": "django_taskkit.transports.redis:Trnasport"}, "Trnasport"),
        ({"broker_url": "nonsense://127.0.0.1"}, "nonsense"),
    ],
)
def test_e005_a_transport_that_cant_be_loaded(station, wrong, says):
    station.app.conf.update({"broker_url": "redis://127.0.0.1:1/0", **wrong})

    [message] = deployment("taskkit.E005")  # once, though it is both read from and written to
    assert message.is_serious()
    assert says in message.msg
    assert "broker_transport" in message.hint
    assert "pip install" in message.hint


def test_e005_tells_no_part_of_a_password(station):
    station.app.conf.broker_url = "redis://:hunter2/ss@localhost:6379/0"

    [message] = deployment("taskkit.E005")
    assert "hunter2" not in message.msg
    assert "ValueError: its text may have a password in it" in message.msg


def test_no_check_connects_to_a_broker(station, monkeypatch):
    def connect(*args, **kwargs):
        raise AssertionError("it connected")

    monkeypatch.setattr("socket.socket.connect", connect)
    for url in ("redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//", "sentinel://127.0.0.1:1"):
        station.app.conf.broker_url = url
        deployment()


class OwnTransport(Transport):
    """Of a project that adds something to ours."""
