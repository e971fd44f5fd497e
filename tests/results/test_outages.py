"""A cache that is out of reach for a moment, at each step of a run."""

from __future__ import annotations

import contextlib

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from django_taskkit.exceptions import StoreError
from django_taskkit.results import ResultCache, Status, fulfilment
from django_taskkit.stores.cache import CacheStore
from django_taskkit.stores.opening import _open
from django_taskkit.stores.renewal import renewer

pytestmark = pytest.mark.django_db(transaction=True)


@contextlib.contextmanager
def outage(monkeypatch, *names):
    """The store is out of reach for a moment; the cache itself isn't asked."""

    def fail(self, *args, **kwargs):
        raise StoreError("a moment's outage")

    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(CacheStore, name, fail)
        yield


@pytest.fixture
def no_pause(monkeypatch):
    """The outage is over before a pause would be."""
    monkeypatch.setattr("django_taskkit.stores.pausing.SHORTEST", 0.0)


def run_with_an_outage_at_its_start(station, monkeypatch, slow):
    stack = contextlib.ExitStack()
    stack.enter_context(outage(monkeypatch, "read", "swap"))
    slow.meanwhile.append(stack.close)
    station.run_next()


def test_what_was_invalidated_does_not_come_back_although_the_run_could_not_put_its_mark(
    station, slow, monkeypatch, no_pause
):
    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    slow.meanwhile.append(lambda: cache.invalidate(7))

    run_with_an_outage_at_its_start(station, monkeypatch, slow)

    assert slow.made == [7]
    assert not cache.peek(7).has_value


def test_a_tag_counts_although_the_cache_was_away_when_the_run_began(station, slow, monkeypatch, no_pause):
    cache = ResultCache(slow, tags=("user:{user_id}",))
    cache.get_or_dispatch(7)
    run_with_an_outage_at_its_start(station, monkeypatch, slow)

    cache.invalidate_tag("user:7")

    assert not cache.peek(7).has_value


def test_what_the_cache_lost_for_a_worker_is_made_again_when_its_time_is_up(station, slow, monkeypatch, clock):
    cache = ResultCache(slow, lock_timeout=60)
    cache.get_or_dispatch(7)
    with outage(monkeypatch, "read", "swap", "trade"):
        station.run_next()
    _open.clear()
    clock.shift(61)

    assert cache.get_or_dispatch(7).dispatched


def test_a_retry_that_could_not_put_its_mark_is_made_again_when_somebody_asks(station, fragile, monkeypatch):
    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    fragile.errors.append(OSError("busy"))
    station.run_next()
    assert cache.peek(7).status is Status.RETRYING

    def out_of_reach(*args, **kwargs):
        raise StoreError("a moment's outage")

    monkeypatch.setattr(fulfilment, "update", out_of_reach)  # which puts the mark
    station.run_next()

    assert cache.get_or_dispatch(7).dispatched


def test_a_renewal_that_fails_once_does_not_cost_the_value(station, slow, monkeypatch):
    """One answer of the cache that came too late, seconds before the end of a run of hours."""
    cache = ResultCache(slow)
    sent = cache.get_or_dispatch(7)

    def renewal_fails():
        (duty,) = [one for one in renewer._duties if sent.task_id in one.what]
        with outage(monkeypatch, "read"):
            duty.do(renewer.clock())

    slow.meanwhile.append(renewal_fails)
    station.run_next()

    _open.clear()  # the web process has a store of its own, which nothing pauses
    assert cache.peek(7).status is Status.HIT


def test_a_value_that_the_store_does_not_take_is_a_failure(station, slow, monkeypatch):
    """The comment in fulfilment.succeeded: 'Perhaps the value alone was too much, and the record can be written'."""
    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    with outage(monkeypatch, "trade"):
        station.run_next()

    _open.clear()
    assert cache.peek(7).status is Status.FAILED


def test_a_soft_time_limit_that_strikes_while_the_value_is_set_is_a_failure(station, slow, monkeypatch):
    def over(self, *args, **kwargs):
        raise SoftTimeLimitExceeded

    cache = ResultCache(slow)
    cache.get_or_dispatch(7)
    with monkeypatch.context() as patch:
        patch.setattr(CacheStore, "trade", over)
        station.run_next()

    assert cache.peek(7).status is Status.FAILED
