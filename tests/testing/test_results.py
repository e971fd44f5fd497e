"""Cached results in a user's own tests."""

from __future__ import annotations

import pytest
from django.core.cache import cache as default_cache

from django_taskkit.results import ResultCache, Status
from django_taskkit.testing import inline_worker

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_value_is_there_when_the_worker_has_run(station):
    @station.app.task(name="shop.report")
    def report(user_id):
        return user_id * 2

    cache = ResultCache(report, timeout=60, tags=("user:{user_id}",))
    with inline_worker(station.app) as worker:
        sent = cache.get_or_dispatch(7)
        worker.run()

        state = cache.get_or_dispatch(7)

        assert (sent.status, state.status, state.value) == (Status.PENDING, Status.HIT, 14)
        cache.invalidate_tag("user:7")
        assert cache.get_or_dispatch(7).dispatched


def test_nothing_of_it_is_in_the_cache_of_the_project(station):
    @station.app.task(name="shop.report")
    def report(user_id):
        return user_id * 2

    cache = ResultCache(report)
    default_cache.set(cache.key(7), "of the project", 60)
    for _ in range(2):  # the second test knows nothing of the first
        with inline_worker(station.app) as worker:
            assert cache.get_or_dispatch(7).status is Status.PENDING
            worker.run()
            assert cache.get_or_dispatch(7).status is Status.HIT

    assert default_cache.get(cache.key(7)) == "of the project"
    default_cache.clear()
