"""What should have run while no beat was at work is told: how often, since when, and what is made up for."""

from datetime import datetime, timedelta, timezone

import pytest
from celery.beat import ScheduleEntry
from celery.schedules import crontab, schedule

from django_taskkit.beat import missed
from django_taskkit.signals import BeatRunsMissed, beat_runs_missed

NOW = datetime(2026, 3, 2, 12, 0, 30, tzinfo=timezone.utc)


@pytest.fixture
def told():
    events = []

    def note(sender, event, **kwargs):
        events.append(event)

    beat_runs_missed.connect(note)
    yield events
    beat_runs_missed.disconnect(note)


def now():
    return NOW


def entry(what, last, name="daily"):
    what.nowfun = now
    return ScheduleEntry(name=name, task="tasks.daily", schedule=what, last_run_at=last)


def report(one, since):
    missed.report([one], since.timestamp())


def test_a_crontab_that_was_due_four_times_is_told_once(told, caplog):
    since = NOW - timedelta(hours=4)

    report(entry(crontab(minute="0"), since), since)

    (event,) = told
    assert event == BeatRunsMissed(
        entry="daily",
        task_name="tasks.daily",
        count=4,
        skipped=3,
        first=datetime(2026, 3, 2, 9, tzinfo=timezone.utc),
        since=since,
    )
    assert "daily (tasks.daily) should have run 4 times since 2026-03-02T09:00:00+00:00" in caplog.text
    assert "it runs once now" in caplog.text


def test_an_interval_is_counted_without_walking_through_it(told):
    since = NOW - timedelta(days=300)

    report(entry(schedule(timedelta(seconds=1)), since), since)

    assert told[0].count == 300 * 86400


def test_runs_before_the_last_beat_was_seen_are_not_missed(told):
    report(entry(crontab(minute="30"), NOW - timedelta(days=30)), NOW - timedelta(hours=1))

    assert told[0].count == 1


def test_one_run_that_is_a_moment_late_is_no_matter(told):
    report(entry(crontab(), NOW - timedelta(seconds=40)), NOW - timedelta(seconds=40))

    assert told == []


def test_what_was_not_due_is_not_missed(told):
    since = NOW - timedelta(minutes=10)

    report(entry(crontab(minute="30", hour="3"), since), since)

    assert told == []


def test_a_deadline_of_celerys_is_told_of(told, caplog, station):
    since = NOW - timedelta(hours=4)
    one = entry(crontab(minute="55"), since)
    one.schedule.app = station.app
    station.app.conf.beat_cron_starting_deadline = 60

    report(one, since)

    assert told[0].skipped == told[0].count == 4
    assert "it does not run now" in caplog.text


def test_an_entry_that_nobody_can_ask_keeps_none_from_being_told(told):
    since = NOW - timedelta(hours=4)
    broken = entry(crontab(), since)
    broken.schedule = None

    missed.report([broken, entry(crontab(minute="0"), since)], since.timestamp())

    assert [event.entry for event in told] == ["daily"]
