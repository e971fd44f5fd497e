"""What was sent is not sent again by a schedule that knows less; what a beat died over is."""

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from celery.beat import ScheduleEntry
from celery.schedules import crontab

from django_taskkit.beat.ledger import LeaseLost, Ledger, seconds
from django_taskkit.beat.place import Run


class Fence:
    sure = True
    renews = True

    def is_sure(self):
        return self.sure

    def renew(self):
        return self.renews


@pytest.fixture
def ledger(place, clock, beat):
    def ledger(holder="first"):
        return Ledger(place, holder, wall=clock)

    assert beat("first").hold()
    return ledger


def at(when):
    return datetime.fromtimestamp(when, tz=timezone.utc)


def entry(last, name="daily", schedule=60.0, runs=1):
    return ScheduleEntry(name=name, task="tasks.daily", schedule=schedule, last_run_at=at(last), total_run_count=runs)


def send(ledger, one):
    ledger.end(one, ledger.begin(one, Fence()))


def test_another_beat_knows_what_was_sent(ledger, clock):
    send(ledger("first"), entry(clock() - 60))
    behind, other = entry(clock() - 60), ledger("second")

    other.load(["daily"])
    other.correct(behind)

    assert seconds(behind.last_run_at) == clock()


def test_a_schedule_that_knows_of_a_later_run_keeps_it(ledger, clock):
    send(ledger("first"), entry(clock() - 60))
    ahead, other = entry(clock() + 5), ledger("second")

    other.load(["daily"])
    other.correct(ahead)

    assert seconds(ahead.last_run_at) == clock() + 5


def test_a_clock_that_was_ahead_silences_no_entry(ledger, clock):
    clock.pass_by(3600)
    send(ledger("first"), entry(clock() - 60))
    clock.pass_by(-3600)
    behind, other = entry(clock() - 60), ledger("second")

    other.load(["daily"])
    other.correct(behind)

    assert seconds(behind.last_run_at) == clock()


def test_what_a_beat_died_over_is_sent_again_and_once(ledger, clock, caplog):
    before = clock() - 60
    ledger("first").begin(entry(before), Fence())
    saved, other = entry(clock()), ledger("second")

    other.load(["daily"])
    other.correct(saved)

    assert seconds(saved.last_run_at) == before
    assert "is sent again" in caplog.text
    saved.last_run_at = at(clock())
    other.correct(saved)
    assert seconds(saved.last_run_at) == clock()


@pytest.mark.parametrize("ran_before", [True, False])
def test_who_has_lost_the_lease_sends_nothing(ledger, beat, clock, ran_before):
    first = ledger("first")
    if ran_before:
        send(first, entry(clock() - 60))
    second = beat("second")
    second.hold()
    clock.pass_by(60)
    second.hold()

    with pytest.raises(LeaseLost):
        first.begin(entry(clock() - 60), Fence())


def test_who_is_not_sure_asks_before_it_sends(ledger, clock):
    fence = Fence()
    fence.sure = fence.renews = False

    with pytest.raises(LeaseLost):
        ledger("first").begin(entry(clock()), fence)


def test_in_an_outage_it_sends_while_it_is_sure_and_writes_it_down_later(ledger, place, clock):
    first, one = ledger("first"), entry(clock() - 60)
    place.is_away = True
    send(first, one)
    place.is_away = False
    assert place.runs(["daily"]) == {}

    first.flush()

    assert place.runs(["daily"]) == {"daily": Run(holder="first", began_at=clock(), before=clock() - 60, is_sent=True)}


def test_in_an_outage_it_does_not_send_what_it_is_not_sure_of(ledger, place, clock):
    fence = Fence()
    fence.sure = False
    place.is_away = True

    with pytest.raises(LeaseLost):
        ledger("first").begin(entry(clock()), fence)


def test_names_that_differ_in_case_alone_are_two_entries(ledger, place, clock):
    send(ledger("first"), entry(clock(), name="Daily"))
    send(ledger("first"), entry(clock() - 9, name="daily"))

    assert set(place.runs(["Daily", "daily"])) == {"Daily", "daily"}


def test_an_entry_of_a_new_schedule_file_goes_on_from_its_last_run(ledger, clock):
    send(ledger("first"), entry(clock() - 60, schedule=86400.0))
    ran_at = clock()
    clock.pass_by(3600)
    fresh, other = entry(clock(), schedule=86400.0, runs=0), ledger("second")

    other.load(["daily"])
    other.restore(fresh, clock() - 5)

    assert seconds(fresh.last_run_at) == ran_at


def test_an_entry_that_was_not_in_the_schedule_for_a_while_begins_anew(ledger, clock):
    send(ledger("first"), entry(clock() - 60))
    clock.pass_by(3600)
    fresh, other = entry(clock(), runs=0), ledger("second")

    other.load(["daily"])
    other.restore(fresh, clock() - 5)

    assert seconds(fresh.last_run_at) == clock()


def one_off(clock, changed, count=0):
    model = SimpleNamespace(one_off=True, total_run_count=count, date_changed=at(changed))
    made = entry(clock() - 60, schedule=crontab())
    made.model = model
    return made


def test_what_runs_but_once_did_so_though_its_beat_was_killed(ledger, clock):
    send(ledger("first"), entry(clock() - 60))
    forgotten, again = one_off(clock, clock() - 100), one_off(clock, clock() + 1)
    other = ledger("second")

    other.load(["daily"])
    other.correct(forgotten)
    other.correct(again)

    assert forgotten.model.total_run_count == 1
    assert again.model.total_run_count == 0, "somebody has enabled it again"


def test_a_time_without_a_zone_stays_one(ledger, clock):
    send(ledger("first"), entry(clock() - 60))
    naive, other = entry(clock() - 60), ledger("second")
    naive.last_run_at = (at(clock()) - timedelta(seconds=60)).replace(tzinfo=None)

    other.load(["daily"])
    other.correct(naive)

    assert naive.last_run_at == at(clock()).replace(tzinfo=None)


def test_a_late_word_of_one_that_was_followed_changes_nothing(ledger, place, beat, clock):
    first, one = ledger("first"), entry(clock() - 60)
    run = first.begin(one, Fence())
    second = beat("second")
    second.hold()
    clock.pass_by(60)
    second.hold()
    send(ledger("second"), one)

    first.end(one, run)

    assert place.runs(["daily"])["daily"].holder == "second"
    assert replace(run, is_sent=True) != place.runs(["daily"])["daily"]
