"""Values that are invalidated together."""

from __future__ import annotations

import pytest
from django.core.cache import caches

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results import ResultCache, Status, invalidate_tag
from django_taskkit.results.tags import tag_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def cache(report):
    return ResultCache(report, tags=("user:{user_id}", "month:{month}"))


def make(station, cache, *args):
    cache.get_or_dispatch(*args)
    station.run_all()
    assert cache.peek(*args).status is Status.HIT


def test_all_values_with_the_tag_are_gone_and_no_others(station, cache):
    for args in ((7, "2026-10"), (7, "2026-11"), (8, "2026-11")):
        make(station, cache, *args)

    cache.invalidate_tag("user:7")

    assert cache.peek(7, "2026-10").status is Status.ABSENT
    assert cache.peek(7, "2026-11").status is Status.ABSENT
    assert cache.peek(8, "2026-11").status is Status.HIT


def test_a_value_is_gone_with_any_of_its_tags(station, cache):
    make(station, cache, 7, "2026-11")

    invalidate_tag("month:2026-11")

    assert cache.peek(7, "2026-11").status is Status.ABSENT


def test_what_is_made_afterwards_counts_again(station, cache):
    make(station, cache, 7)
    cache.invalidate_tag("user:7")

    make(station, cache, 7)


def test_a_tag_is_shared_by_the_caches_of_different_tasks(station, cache):
    @station.app.task(name="shop.other")
    def other(user_id):
        return user_id

    others = ResultCache(other, tags=lambda user_id: [f"user:{user_id}"])
    make(station, others, 7)

    cache.invalidate_tag("user:7")

    assert others.peek(7).status is Status.ABSENT


def test_a_tag_that_the_cache_has_thrown_away_costs_a_run_and_shows_nothing_old(station, cache):
    make(station, cache, 7)
    caches["default"].delete(tag_key("user:7"))

    assert cache.get_or_dispatch(7).dispatched


def test_calls_that_share_a_value_share_its_tags(station, report):
    with pytest.raises(ConfigurationError, match="tags: 'month' is not in vary_on"):
        ResultCache(report, vary_on=("user_id",), tags=("month:{month}",)).get_or_dispatch(7)

    asked = []
    cache = ResultCache(report, vary_on=("user_id",), tags=lambda **given: asked.append(given) or ["all"])
    make(station, cache, 7, "2026-10")

    assert asked[0] == {"user_id": 7}


def test_tags_that_are_no_texts_are_refused(report):
    cache = ResultCache(report, tags=lambda **arguments: [7])

    with pytest.raises(ConfigurationError, match=r"tags returned \(7,\); return texts"):
        cache.get_or_dispatch(7)


def test_a_value_without_the_tags_of_today_does_not_count(station, report):
    """Made by another ResultCache of the same task, or by the deployment before the one that has the tag."""
    ResultCache(report).get_or_dispatch(7)
    station.run_next()
    tagged = ResultCache(report, tags=("user:{user_id}",))
    tagged.invalidate_tag("user:7")

    assert tagged.get_or_dispatch(7).dispatched


def test_a_tag_lives_as_long_as_the_longest_value_that_has_it(station, report, slow, clock):
    long, short = (
        ResultCache(report, timeout=None, tags=("user:{user_id}",)),
        ResultCache(slow, timeout=60, tags=("user:{user_id}",)),
    )
    for cache in (long, short):
        cache.get_or_dispatch(7)
        station.run_next()
    clock.shift(2 * 86_400)

    assert long.peek(7).status is Status.HIT
