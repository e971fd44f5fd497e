"""Who may set a value: the run that has looked at the newest data, and nobody else."""

from __future__ import annotations

import pytest

from django_taskkit.envelope import RESULT_HEADER
from django_taskkit.results import ResultCache, Status

pytestmark = pytest.mark.django_db


def test_what_was_invalidated_while_it_was_made_does_not_come_back(station, slow):
    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    slow.meanwhile.append(lambda: cache.invalidate(7))
    station.run_next()

    assert cache.peek(7).status is Status.ABSENT
    cache.get_or_dispatch(7)
    station.run_next()
    assert cache.peek(7).value == 2


def test_what_has_a_tag_that_was_invalidated_meanwhile_does_not_count(station, slow):
    cache = ResultCache(slow, tags=("user:{user_id}",))
    cache.get_or_dispatch(7)
    slow.meanwhile.append(lambda: cache.invalidate_tag("user:7"))
    station.run_next()

    assert cache.peek(7).status is Status.ABSENT
    assert cache.get_or_dispatch(7).dispatched


def test_a_slow_run_does_not_overwrite_a_newer_value(station, slow, clock):
    cache = ResultCache(slow, lock_timeout=30)
    cache.get_or_dispatch(7)

    def a_newer_one():
        clock.shift(31)  # as nothing renews the record that long, the run that goes on counts as lost
        assert cache.get_or_dispatch(7).dispatched
        station.run_next()
        assert cache.peek(7).value == 2

    slow.meanwhile.append(a_newer_one)
    station.run_next()

    assert cache.peek(7).value == 2


def test_a_message_that_comes_late_leaves_the_value_to_the_one_that_was_sent_in_its_place(station, slow, clock):
    cache = ResultCache(slow, lock_timeout=30)
    cache.get_or_dispatch(7)
    late = station.take()
    clock.shift(31)
    assert cache.peek(7).status is Status.LOST
    cache.get_or_dispatch(7)

    station.run(late)

    assert cache.peek(7).status is Status.PENDING
    station.run_next()
    assert cache.peek(7).value == 2


def test_a_message_that_comes_late_and_finds_nobody_makes_the_value(station, slow, clock):
    cache = ResultCache(slow, lock_timeout=30)
    cache.get_or_dispatch(7)
    clock.shift(7200)  # nobody asks any more, and the record is gone

    station.run_next()

    assert cache.peek(7).value == 1


def test_of_two_deliveries_of_a_message_the_one_that_began_last_sets_the_value(station, slow):
    cache = ResultCache(slow)
    sent = cache.get_or_dispatch(7)
    first = station.take()
    slow.apply_async((7,), task_id=sent.task_id, headers={RESULT_HEADER: first.headers[RESULT_HEADER]})
    slow.meanwhile.append(station.run_next)

    station.run(first)

    assert cache.peek(7).value == 2


def test_a_lost_task_is_sent_again_by_the_next_who_asks(station, report, clock):
    cache = ResultCache(report, lock_timeout=30)
    first = cache.get_or_dispatch(7)
    station.take()  # and lose it
    clock.shift(29)
    assert cache.get_or_dispatch(7).status is Status.PENDING
    clock.shift(2)

    assert cache.peek(7).status is Status.LOST
    state = cache.get_or_dispatch(7)

    assert (state.status, state.dispatched) == (Status.PENDING, True)
    assert state.task_id != first.task_id


def test_a_value_that_was_made_between_two_looks_is_not_made_again(station, report, monkeypatch):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    read = cache._dispatcher.store.read

    def somebody_is_faster(key):
        if station.waiting():
            station.run_next()
        return read(key)

    monkeypatch.setattr(cache._dispatcher.store, "read", somebody_is_faster)

    state = cache.get_or_dispatch(7)

    assert (state.status, state.dispatched) == (Status.HIT, False)
    assert station.waiting() == 0
    assert cache.peek(7).status is Status.HIT


@pytest.mark.parametrize(("options", "seconds"), [({}, 60), ({"lease": 300}, 300), ({"lock_timeout": 30}, 30)])
def test_a_run_counts_as_lost_when_its_worker_is_not_heard_of_for_the_lease(station, slow, clock, options, seconds):
    cache = ResultCache(slow, **options)
    cache.get_or_dispatch(7)
    stands = []

    def nothing_is_heard():
        clock.shift(seconds - 1)
        stands.append(cache.peek(7).status)
        clock.shift(2)
        stands.append(cache.peek(7).status)

    slow.meanwhile.append(nothing_is_heard)
    station.run_next()

    assert stands == [Status.RUNNING, Status.LOST]
