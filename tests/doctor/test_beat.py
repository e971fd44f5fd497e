from datetime import datetime, timedelta, timezone

import pytest

from django_taskkit.beat import BeatState
from django_taskkit.doctor.beat import beat, judged

NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)


def seen(age=1.0, *, due_in=30.0, stopped=False):
    return BeatState(
        lock="database",
        app="shop",
        host="web1",
        pid=42,
        scheduler="celery.beat:PersistentScheduler",
        started_at=NOW - timedelta(days=1),
        seen_at=NOW - timedelta(seconds=age),
        next_due_at=None if due_in is None else NOW + timedelta(seconds=due_in),
        is_stopped=stopped,
        age=age,
    )


@pytest.mark.parametrize(
    ("found", "level"),
    [
        (None, "error"),
        (seen(), "ok"),
        (seen(due_in=None), "ok"),
        (seen(due_in=-300), "warning"),
        (seen(age=900), "error"),
        (seen(stopped=True), "error"),
    ],
)
def test_a_beat_is_alive_and_in_time_or_it_is_told(found, level):
    assert judged(found, NOW.timestamp()).level.value == level


def test_where_nothing_is_scheduled_no_beat_is_needed(site):
    [found] = beat(site)

    assert (found.level.value, "Nothing is scheduled" in found.text) == ("ok", True)


@pytest.mark.django_db
def test_a_schedule_that_nobody_sends_is_an_error(app, site):
    app.conf.beat_schedule = {"daily": {"task": "shop.sum", "schedule": 60}}

    assert [finding.level.value for finding in beat(site)] == ["error"]


def test_without_a_lock_nobody_knows(app, site, settings):
    settings.TASKKIT = {"BEAT_LOCK": "off"}
    app.conf.beat_schedule = {"daily": {"task": "shop.sum", "schedule": 60}}

    assert [finding.level.value for finding in beat(site)] == ["unknown"]
