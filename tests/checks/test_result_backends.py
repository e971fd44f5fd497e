"""Results that can't be stored, or are never deleted."""

from datetime import timedelta

import pytest
from celery.schedules import crontab

from tests.checks.asking import ids, messages, said
from tests.checks.conftest import REDIS


def test_e017_results_in_tables_that_are_not_there(station):
    station.app.conf.result_backend = "django-db"

    [message] = messages()

    assert (message.id, message.is_serious()) == ("taskkit.E017", True)


def test_e017_not_with_the_app(station, settings):
    pytest.importorskip("django_celery_results")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_celery_results"]
    station.app.conf.result_backend = "django-db"

    assert said("E017", deploy=False) == []


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        ({"result_backend": REDIS}, 1),
        ({"result_backend": REDIS, "redis_socket_keepalive": True}, 0),
        ({"result_backend": REDIS, "redis_backend_health_check_interval": 25}, 0),
        ({"result_backend": "rpc://"}, 0),
        ({"result_backend": None}, 0),
    ],
)
def test_w041_a_dropped_connection_to_the_results(station, conf, told):
    station.app.conf.update(conf)

    assert len(said("W041", deploy=True)) == told
    assert ids() == []


SCHEDULE = {"digest": {"task": "celery.backend_cleanup", "schedule": crontab(hour=7)}}


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        (
            {"result_backend": REDIS, "result_expires": 0},
            "results are never deleted, and fill Redis",
        ),
        ({"result_backend": REDIS, "result_expires": None}, "result_expires is None"),
        ({"result_backend": REDIS, "result_expires": timedelta(0)}, "result_expires is datetime.timedelta(0)"),
        ({"result_backend": "django-db", "result_expires": 0, "beat_schedule": SCHEDULE}, "fill the database"),
        ({"result_backend": "db+sqlite://"}, "celery.backend_cleanup"),
        ({"result_backend": "django-db"}, "celery.backend_cleanup"),
        ({"result_backend": REDIS}, None),
        ({"result_backend": "django-db", "beat_schedule": SCHEDULE}, None),
        ({"result_backend": "django-db", "beat_scheduler": "redbeat.RedBeatScheduler"}, None),
        ({"result_backend": "rpc://", "result_expires": 0}, None),
    ],
)
def test_w042_results_that_are_never_deleted(station, conf, told):
    station.app.conf.update(conf)

    found = said("W042", deploy=True)

    assert len(found) == bool(told)
    assert all(told in message.msg for message in found)


ALWAYS = {"result_backend": REDIS, "result_backend_always_retry": True}


@pytest.mark.parametrize(
    ("conf", "told"),
    [
        (ALWAYS, 1),
        ({**ALWAYS, "result_backend_max_retries": None}, 1),
        ({**ALWAYS, "result_backend_max_retries": 10}, 0),
        ({"result_backend": REDIS}, 0),
        ({**ALWAYS, "result_backend": None}, 0),
    ],
)
def test_w043_results_that_are_stored_again_for_ever(station, conf, told):
    station.app.conf.update(conf)

    assert len(said("W043", deploy=True)) == told
