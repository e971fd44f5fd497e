"""Celery's loop has a scheduler that works only while the lease is held, and the real one behind it."""

import os
import signal

import pytest
from celery.beat import Scheduler, Service
from django.db import InterfaceError, OperationalError, ProgrammingError

from django_taskkit.beat import state
from django_taskkit.beat.hooks import hook
from django_taskkit.beat.interruptions import put_off
from django_taskkit.beat.lease import LEASE, POLL, NoLease, Standing
from django_taskkit.beat.ledger import Ledger
from django_taskkit.beat.scheduler import SoleScheduler


class Real(Scheduler):
    """Celery's own, which notes what it does."""

    def __init__(self, *args, **kwargs):
        self.sent, self.closed, self.fails_with = [], 0, None
        super().__init__(*args, **kwargs)

    def setup_schedule(self):
        self.merge_inplace(self.app.conf.beat_schedule)

    def send_task(self, name, *args, **kwargs):
        if self.fails_with:
            raise self.fails_with
        self.sent.append(name)

    @property
    def producer(self):
        return None

    def close(self):
        self.closed += 1


@pytest.fixture
def sole(station, place, clock, beat):
    """``sole("second")`` is the scheduler of another beat; ``.made`` are the real ones that it had."""
    station.app.conf.beat_schedule = {"often": {"task": "often", "schedule": 0.0}}

    def sole(holder="first", lease=None):
        made, turns = [], []

        def build():
            made.append(Real(station.app))
            return made[-1]

        lease = lease or beat(holder)
        ledger = None if isinstance(lease, NoLease) else Ledger(place, holder, wall=clock)
        scheduler = SoleScheduler(
            build, lambda: Real(station.app, lazy=True), lease, ledger, lambda standing, due: turns.append(standing)
        )
        scheduler.made, scheduler.turns = made, turns
        return scheduler

    return sole


def test_the_second_makes_no_scheduler_and_says_once_that_it_stands_by(sole, caplog):
    first, second = sole("first"), sole("second")
    first.tick()

    assert [second.tick() for _ in range(3)] == [POLL] * 3
    assert first.made[0].sent == ["often"]
    assert second.made == []
    assert second.max_interval == 300
    assert caplog.text.count("this one stands by") == 1
    assert second.turns == [Standing.STANDBY] * 3


def test_one_that_was_frozen_in_the_middle_of_sending_sends_nothing(sole, clock):
    first, second = sole("first"), sole("second")
    first.tick()
    second.tick()
    real = first.made[0]
    due = real.is_due

    def frozen(entry):
        real.is_due = due
        clock.pass_by(LEASE)
        second.tick()
        return due(entry)

    real.is_due = frozen

    assert first.tick() == 0
    assert first.tick() == POLL
    assert len(real.sent) == 1
    assert len(second.made[0].sent) == 1
    assert real.closed == 0, "what it knows is out of date"


def test_it_wakes_up_to_keep_its_lease(sole, station):
    station.app.conf.beat_schedule = {"rarely": {"task": "rarely", "schedule": 3600.0}}

    assert sole().tick() <= LEASE / 3


def test_it_is_closed_once_and_hands_over(sole):
    first, second = sole("first"), sole("second")
    first.tick()
    second.tick()

    first.close()
    first.close()

    assert first.made[0].closed == 1
    second.tick()
    assert second.made[0].sent == ["often"]


def test_a_signal_in_the_middle_of_a_tick_closes_nothing_yet(sole):
    first = sole()
    first.tick()
    real = first.made[0]
    tick, real.tick = real.tick, lambda: first.close() or tick()

    first.tick()
    assert real.closed == 0
    first.close()
    assert real.closed == 1


def test_an_entry_that_cannot_be_sent_is_not_taken_for_one_that_its_beat_died_over(sole, place):
    first = sole()
    first.tick()
    first.made[0].fails_with = OSError("no broker")

    first.tick()

    assert place.runs(["often"])["often"].is_sent


def test_a_schedule_in_a_database_that_is_away_does_not_end_beat(sole, caplog):
    first = sole()
    first.tick()

    def fail():
        raise OperationalError("gone")

    first.made[0].tick = fail

    assert first.tick() == POLL
    assert "the schedule can't be read" in caplog.text


@pytest.mark.parametrize("error", [OperationalError, InterfaceError])
def test_one_that_takes_over_while_the_schedule_cannot_be_read_waits_for_it(sole, caplog, error):
    first = sole()
    build, failures = first._build, [error("gone"), error("gone")]

    def fail_twice():
        if failures:
            raise failures.pop()
        return build()

    first._build = fail_twice

    assert [first.tick(), first.tick()] == [POLL, POLL]
    assert "the schedule can't be read" in caplog.text
    first.tick()
    assert first.made[0].sent == ["often"]


def test_a_schedule_without_its_tables_ends_beat_at_once(sole):
    first = sole()

    def fail():
        raise ProgrammingError("no such table")

    first._build = fail

    with pytest.raises(ProgrammingError):
        first.tick()


def test_with_the_lock_switched_off_everyone_sends(sole):
    first, second = sole("first", NoLease()), sole("second", NoLease())
    first.tick()
    second.tick()

    assert first.made[0].sent == second.made[0].sent == ["often"]


@pytest.mark.parametrize("lock", ["database", "store", "off"])
def test_celerys_service_gets_it_and_its_state_can_be_read(lock, station, db, settings, tmp_path):
    settings.TASKKIT = {"BEAT_LOCK": lock}
    hook()
    service = Service(station.app, schedule_filename=str(tmp_path / "schedule"))

    service.scheduler.tick()

    assert isinstance(service.scheduler, SoleScheduler)
    assert isinstance(service.get_scheduler(lazy=True), Scheduler), "only to be shown"
    if lock == "off":
        assert state(station.app) is None
    else:
        known = state(station.app)
        assert (known.lock, known.pid, known.is_alive, known.is_stopped) == (lock, os.getpid(), True, False)
        assert known.scheduler == "celery.beat:PersistentScheduler"
    service.sync()
    if lock != "off":
        assert state(station.app).is_stopped
        assert not state(station.app).is_alive


def test_a_service_that_never_worked_opens_no_schedule_when_it_ends(station, db, tmp_path):
    hook()
    path = tmp_path / "schedule"

    Service(station.app, schedule_filename=str(path)).sync()

    assert list(tmp_path.iterdir()) == []


def test_a_signal_waits_until_what_is_sent_is_noted():
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append("signal"))
    try:
        with put_off():
            os.kill(os.getpid(), signal.SIGTERM)
            seen.append("sent")
        assert seen == ["sent", "signal"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_without_a_beat_celery_beat_is_not_loaded():
    import subprocess
    import sys

    code = """
import sys, django
from django.conf import settings
settings.configure(INSTALLED_APPS=["django.contrib.contenttypes", "django_taskkit"])
django.setup()
print("celery.beat" in sys.modules, "django_taskkit.beat.scheduler" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == (
        "False False\n"
    )
