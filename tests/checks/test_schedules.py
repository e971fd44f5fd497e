"""Schedules that beat fails with, or keeps by another clock."""

from datetime import timedelta

import pytest
from celery.beat import Scheduler
from celery.schedules import crontab, schedule

from tests.checks.asking import ids, messages, said


def test_e019_a_schedule_in_tables_that_are_not_there(station):
    station.app.conf.beat_scheduler = "django_celery_beat.schedulers:DatabaseScheduler"

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E019", True)


def test_e019_not_with_the_app(station, settings):
    pytest.importorskip("django_celery_beat")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_celery_beat"]
    station.app.conf.beat_scheduler = "django_celery_beat.schedulers:DatabaseScheduler"

    assert said("E019", deploy=False) == []


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"schedule": 60}, "without 'task'"),
        ({"task": "send"}, "without 'schedule'"),
        ({"task": "send", "schedule": 60, "queue": "mail"}, "with 'queue'"),
        ({"task": "send", "schedule": "*/5 * * * *"}, "whose schedule is a str"),
        ("send", "that is a str"),
    ],
)
def test_e020_an_entry_that_ends_beat(station, entry, told):
    station.app.conf.beat_schedule = {"each minute": entry}

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E020", True)
    assert f"an entry 'each minute' {told}" in message.msg
    with pytest.raises((AssertionError, AttributeError, TypeError, ValueError)):
        _due(station.app)


@pytest.mark.parametrize("when", [60, 0.5, timedelta(minutes=1), crontab(), schedule(60)])
def test_e020_not_of_what_beat_takes(station, when):
    station.app.conf.beat_schedule = {"each minute": {"task": "celery.backend_cleanup", "schedule": when, "args": (1,)}}

    assert ids() == []
    _due(station.app)


def _due(app):
    """What beat does at its start, and then for each entry."""
    scheduler = Scheduler(app, lazy=True)
    scheduler.setup_schedule()
    for entry in scheduler.schedule.values():
        assert entry.task
        entry.is_due()


def test_w046_before_deployment_a_task_that_nobody_has(station, late):
    late("orders.send")
    station.app.conf.beat_schedule = {
        "wrong": {"task": "order.send", "schedule": 60},
        "right": {"task": "orders.send", "schedule": 60},
    }

    [message] = said("W046", deploy=True)

    assert message.msg.endswith("sends 'order.send' ('wrong'), and no module registers such a task; did you mean "
                                "'orders.send'?")  # fmt: skip
    assert ids() == []


AT_SEVEN = {"digest": {"task": "celery.backend_cleanup", "schedule": crontab(hour=7)}}
EACH_MINUTE = {"digest": {"task": "celery.backend_cleanup", "schedule": 60}}


@pytest.mark.parametrize(
    ("entries", "zone", "told"),
    [
        (AT_SEVEN, "Asia/Ho_Chi_Minh", 1),
        (AT_SEVEN, "Europe/Berlin", 0),
        (EACH_MINUTE, "Asia/Ho_Chi_Minh", 0),
        ({}, "Asia/Ho_Chi_Minh", 0),
    ],
)
def test_w047_two_clocks(station, settings, entries, zone, told):
    settings.TIME_ZONE = "Europe/Berlin"
    station.app.conf.update(timezone=zone, beat_schedule=entries)

    assert len(said("W047", deploy=True)) == told


def test_w047_not_for_two_names_of_utc(station, settings):
    settings.TIME_ZONE = "Etc/UTC"
    station.app.conf.update(timezone="UTC", beat_schedule=AT_SEVEN)

    assert said("W047", deploy=True) == []
