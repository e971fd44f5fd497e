"""One beat at a time has the lease, in whatever place; and none counts on it for longer than it is surely its own."""

import logging

from django_taskkit import process_identity
from django_taskkit.beat.lease import LEASE, SURE, Standing

HELD, STANDBY, UNSURE = Standing.HELD, Standing.STANDBY, Standing.UNSURE


def test_the_first_has_it_and_the_second_stands_by(beat):
    first, second = beat("first"), beat("second")

    assert first.hold() is HELD
    assert second.hold() is STANDBY
    assert second.other.holder == "first"
    assert not second.is_sure()


def test_a_holder_asks_its_place_once_in_a_third_of_a_lease(beat, place, clock):
    first = beat()
    first.hold()
    before = place.calls

    for _ in range(100):
        clock.pass_by(LEASE / 3 / 101)
        assert first.hold() is HELD
    assert place.calls == before
    clock.pass_by(LEASE / 3)
    first.hold()
    assert place.calls == before + 2, "one look, one write"


def test_one_that_was_silent_for_a_lease_is_followed(beat, clock):
    first, second = beat("first"), beat("second")
    first.hold()
    second.hold()

    clock.pass_by(LEASE - 1)
    assert second.hold() is STANDBY
    clock.pass_by(1)
    assert second.hold() is HELD
    assert second.before.holder == "first"
    assert first.hold() is STANDBY


def test_the_time_counts_from_when_the_other_looked_whatever_the_clocks_say(beat, clock):
    first = beat("first")
    first.hold()
    clock.pass_by(10 * LEASE)

    late = beat("second")

    assert late.hold() is STANDBY, "it has only now begun to look"
    clock.pass_by(LEASE)
    assert late.hold() is HELD


def test_a_sign_of_life_begins_the_time_anew(beat, clock):
    first, second = beat("first"), beat("second")
    first.hold()
    for _ in range(10):
        second.hold()
        clock.pass_by(LEASE / 2)
        assert first.hold() is HELD
    assert second.hold() is STANDBY


def test_the_holder_counts_on_it_for_less_than_others_wait(beat, clock):
    first = beat()
    first.hold()

    clock.pass_by(LEASE * SURE - 0.1)
    assert first.is_sure()
    clock.pass_by(0.2)
    assert not first.is_sure()


def test_what_is_given_back_is_taken_at_once(beat):
    first, second = beat("first"), beat("second")
    first.hold()
    second.hold()

    first.release()

    assert second.hold() is HELD
    assert first.hold() is STANDBY


def test_a_process_of_this_machine_that_is_gone_is_not_waited_for(beat, monkeypatch):
    mine = process_identity.of_this_process()
    place, pid, _began = mine.rsplit("/", 2)
    beat("first", process=f"{place}/{pid}/1").hold()

    assert beat("second").hold() is HELD


def test_a_process_of_this_machine_that_lives_is_waited_for(beat):
    beat("first", process=process_identity.of_this_process()).hold()

    assert beat("second").hold() is STANDBY


def test_without_its_place_the_holder_goes_on_while_it_is_sure_and_then_not(beat, place, clock, caplog):
    first = beat()
    first.hold()
    place.is_away = True

    clock.pass_by(LEASE / 2)
    assert first.hold() is HELD
    clock.pass_by(LEASE / 2)
    assert first.hold() is UNSURE
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "said once"

    place.is_away = False
    assert first.hold() is HELD, "nobody has taken it meanwhile"


def test_without_the_place_nobody_begins(beat, place):
    place.is_away = True

    assert beat().hold() is UNSURE


def test_one_that_was_followed_in_an_outage_learns_so(beat, place, clock):
    first, second = beat("first"), beat("second")
    first.hold()
    second.hold()
    place.is_away = True
    clock.pass_by(LEASE)
    assert first.hold() is UNSURE
    place.is_away = False

    assert second.hold() is HELD
    assert first.hold() is STANDBY


def test_one_that_was_followed_by_another_that_has_stopped_begins_anew(beat, clock):
    first, second = beat("first"), beat("second")
    first.hold()
    second.hold()
    clock.pass_by(LEASE)
    second.hold()
    second.release()

    assert first.hold() is STANDBY, "its schedule is behind"
    assert first.hold() is HELD
    assert first.before.holder == "second"
