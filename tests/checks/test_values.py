"""Values of the wrong type are told, as a worker would take them for something else."""

from datetime import timedelta

import pytest
from celery.app import defaults
from kombu import Queue

from tests.checks.asking import ids, messages


@pytest.mark.parametrize("value", ["False", "0", "no", "true", ""])
def test_e013_a_text_for_yes_or_no(station, value):
    station.app.conf.task_acks_late = value

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E013", True)
    assert f"is the text {value!r}, which counts as {bool(value)}" in message.msg


def test_e013_names_the_setting_as_the_project_does(configured, module):
    configured(module(CELERY_BROKER_URL="memory://", CELERY_TASK_ACKS_LATE="False"))

    assert messages()[0].msg.startswith("CELERY_TASK_ACKS_LATE is ")


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("task_time_limit", "60", "the text '60': a number"),
        ("task_time_limit", timedelta(minutes=1), "datetime.timedelta(seconds=60): a number"),
        ("worker_prefetch_multiplier", "1", "the text '1': a number"),
        ("result_expires", "3600", "the text '3600': a number of seconds or a timedelta"),
        ("broker_transport_options", '{"a": 1}', "a str: a dict"),
        ("beat_schedule", [], "a list: a dict"),
        ("accept_content", "json", "a str: a list"),
        ("task_queues", "default", "a str: a list of queues"),
        ("redis_backend_use_ssl", True, "True: a dict"),
        ("task_acks_late", [], "a list: True or False"),
        ("task_routes", [("pay", {"queue": "q"})], "a list: a dict of routes"),
        ("task_default_queue", 5, "5: the name of a queue"),
        ("broker_url", 6379, "6379: a URL"),
        ("broker_use_ssl", "yes", "the text 'yes', which counts as True"),
    ],
)
def test_e014_a_value_of_another_wrong_type(station, key, value, wanted):
    station.app.conf[key] = value

    found = {message.id: message.msg for message in messages()}

    assert any(f"{key} is {wanted}" in text for text in found.values())
    assert set(found) <= {"taskkit.E013", "taskkit.E014", "taskkit.E018"}


def test_e014_does_not_show_what_may_be_a_secret(station):
    station.app.conf.broker_transport_options = "password=hunter2"

    assert "hunter2" not in str(messages())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("result_expires", timedelta(days=1)),
        ("task_time_limit", 60.5),
        ("task_acks_late", 1),
        ("task_acks_late", None),
        ("broker_use_ssl", {"keyfile": "x"}),
        ("task_queues", [Queue("default")]),
        ("task_queues", {"default": {}}),
        ("imports", "orders.tasks"),
        ("accept_content", {"json"}),
        ("task_default_priority", 5),
        ("redis_port", "6379"),
        ("worker_concurrency", 4),
        ("worker_autoscaler", "celery.worker.autoscale:Autoscaler"),
    ],
)
def test_what_celery_takes_is_not_wrong(station, key, value):
    station.app.conf[key] = value

    assert ids() == []


def test_no_default_of_celerys_own_is_of_a_wrong_type(station):
    copies = {key: value for key, value in defaults.DEFAULTS.items() if isinstance(value, (int, float, dict, tuple))}
    station.app.conf.update({key: type(value)(value) for key, value in copies.items()})

    assert [found for found in ids() if found in ("E013", "E014")] == []
