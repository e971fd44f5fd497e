"""Who sends the task, and what becomes of the record when that fails."""

from __future__ import annotations

import contextlib

import pytest
from django.db import transaction

from django_taskkit.results import ResultCache

pytestmark = pytest.mark.django_db(transaction=True)


def test_who_is_stopped_before_it_has_sent_says_that_nothing_is_on_its_way(station, report, monkeypatch):
    """gunicorn ends a request that takes too long by SystemExit; gevent's Timeout is no Exception either."""

    def ended(*args, **kwargs):
        raise SystemExit(1)

    cache = ResultCache(report)
    with monkeypatch.context() as patch:
        patch.setattr("django_taskkit.results.dispatch.write_card", ended)
        with pytest.raises(SystemExit):
            cache.get_or_dispatch(7)

    assert cache.get_or_dispatch(7).dispatched


def test_a_run_in_a_eager_test_is_not_run_a_second_time_when_it_raises(station):
    runs = []

    @station.app.task(name="shop.raising")
    def raising():
        runs.append(1)
        raise RuntimeError("bad")

    station.app.conf.update(task_always_eager=True, task_eager_propagates=True)
    with contextlib.suppress(RuntimeError):
        ResultCache(raising, when_refused="inline").get_or_dispatch()

    assert len(runs) == 1


def test_what_the_outbox_forgot_in_a_rollback_is_waited_for_a_minute(station, report, settings, clock):
    settings.TASKKIT = {"OUTBOX": "always"}
    cache = ResultCache(report)
    with contextlib.suppress(KeyError), transaction.atomic():
        cache.get_or_dispatch(7)
        raise KeyError("what a view raises under ATOMIC_REQUESTS")
    assert station.waiting() == 0
    clock.shift(61)

    assert cache.get_or_dispatch(7).dispatched
