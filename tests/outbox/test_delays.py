import math
from datetime import datetime, timedelta, timezone

import pytest

from django_taskkit.outbox.delays import safe_hold, seconds_until


@pytest.mark.parametrize(
    ("driver", "options", "natively", "seconds"),
    [
        ("redis", {}, False, 1800),
        ("redis", {"visibility_timeout": 43200}, False, 21600),
        ("sqs", {}, False, 900),
        ("sqs", {"visibility_timeout": 60}, False, 30),
        ("amqp", {}, False, 900),
        ("amqp", {}, True, 2**28),
        ("filesystem", {}, False, math.inf),
        ("memory", {}, False, math.inf),
    ],
)
def test_how_long_a_broker_holds_a_message_safely_follows_from_its_own_settings(
    station, driver, options, natively, seconds
):
    station.app.conf.broker_transport_options = options

    assert safe_hold(station.app, driver, natively=natively) == seconds


@pytest.mark.parametrize(("setting", "seconds"), [(60, 60), (0, math.inf), (None, 1800)])
def test_the_setting_has_the_last_word_and_zero_means_never(station, settings, setting, seconds):
    settings.TASKKIT = {"LONG_DELAY": setting}

    assert safe_hold(station.app, "redis", natively=False) == seconds


def test_an_eta_is_understood_in_every_form_that_celery_takes(station):
    soon = datetime.now(timezone.utc) + timedelta(seconds=100)
    for eta in (soon, soon.isoformat(), soon.astimezone(timezone(timedelta(hours=7))).isoformat()):
        assert 98 < seconds_until(eta, station.app) <= 100
    naive = soon.astimezone(station.app.timezone).replace(tzinfo=None)
    assert 98 < seconds_until(naive.isoformat(), station.app) <= 100


@pytest.mark.parametrize("eta", [None, "", "tomorrow", 17, {"at": 1}])
def test_what_is_no_eta_is_no_delay(station, eta):
    assert seconds_until(eta, station.app) == 0
