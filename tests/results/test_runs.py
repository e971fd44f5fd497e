"""How the task with a certain id stands."""

from __future__ import annotations

import pytest
from asgiref.sync import async_to_sync

from django_taskkit.exceptions import StoreError
from django_taskkit.results import ResultCache, Status
from django_taskkit.results.runs import alook_up, look_up

pytestmark = pytest.mark.django_db


def test_from_sent_to_done(station, report):
    sent = ResultCache(report).get_or_dispatch(7)

    assert look_up("default", sent.task_id).status is Status.PENDING
    station.run_next()
    state = look_up("default", sent.task_id)
    assert (state.status, state.value["user"]) == (Status.HIT, 7)


def test_of_a_refresh_it_is_told_how_that_stands_and_not_that_there_is_an_old_value(station, report):
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    station.run_next()
    sent = cache.refresh(7)

    assert look_up("default", sent.task_id).status is Status.PENDING
    station.run_next()
    assert look_up("default", sent.task_id).status is Status.HIT


def test_once_a_newer_task_has_made_the_value_it_is_there(station, report, clock):
    cache = ResultCache(report, lock_timeout=30)
    old = cache.get_or_dispatch(7)
    station.take()
    clock.shift(31)
    assert look_up("default", old.task_id).status is Status.LOST
    cache.get_or_dispatch(7)
    assert look_up("default", old.task_id).status is Status.PENDING
    station.run_next()

    assert look_up("default", old.task_id).status is Status.HIT


def test_of_what_was_invalidated_nothing_is_on_its_way(station, report):
    cache = ResultCache(report)
    sent = cache.get_or_dispatch(7)
    station.run_next()
    cache.invalidate(7)

    assert look_up("default", sent.task_id).status is Status.ABSENT


def test_a_failure_is_told(station):
    @station.app.task(name="shop.broken")
    def broken():
        raise ValueError("no")

    sent = ResultCache(broken).get_or_dispatch()
    station.run_next()

    assert look_up("default", sent.task_id).status is Status.FAILED


def test_of_an_unknown_id_nothing_is_known(report):
    assert look_up("default", "nobody") is None


def test_a_task_that_no_cache_has_sent_is_unknown_though_it_has_said_something(station):
    from django_taskkit.results import set_progress

    @station.app.task(name="shop.counting")
    def counting():
        set_progress(1, 2)

    sent = counting.delay()
    station.run_next()

    assert look_up("default", sent.id) is None


def test_a_cache_that_is_away_is_said(settings):
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    }

    with pytest.raises(StoreError, match="'default' is out of reach"):
        look_up("default", "anybody")


def test_it_has_a_twin_for_async_code(report):
    sent = ResultCache(report).get_or_dispatch(7)

    assert async_to_sync(alook_up)("default", sent.task_id).status is Status.PENDING


@pytest.mark.django_db(transaction=True)  # only a commit makes the record last as long
def test_a_task_that_waits_for_days_can_be_looked_up_as_long(station, report, clock):
    cache = ResultCache(report, lock_timeout=3 * 86_400)
    sent = cache.get_or_dispatch(7)
    clock.shift(86_400 + 60)
    assert cache.peek(7).status is Status.PENDING

    assert look_up("default", sent.task_id).status is Status.PENDING


def test_what_is_looked_up_is_not_fresh_when_it_is_stale(station, report, clock):
    cache = ResultCache(report, timeout=60, stale_for=600)
    sent = cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(100)

    state = look_up("default", sent.task_id)

    assert (cache.peek(7).status, state.status) == (Status.STALE, Status.STALE)
