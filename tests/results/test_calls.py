"""Which calls have the same value, and what is wrong with some."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_taskkit.call_keys import LONGEST, key_text
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results import ResultCache
from django_taskkit.results.tags import tag_key

pytestmark = pytest.mark.django_db


@pytest.fixture
def task(station):
    @station.app.task(name="shop.report")
    def report(user_id, month="2026-11", *more, detail=False, **rest): ...

    return station.app.tasks["shop.report"]


def test_a_key_can_be_read(report):
    assert ResultCache(report).key(7) == 'taskkit:result:v1:shop.report:{"month":"2026-11","user_id":7}'
    assert ResultCache(report, version="b").key(7).startswith("taskkit:result:vb:shop.report:")


def test_all_ways_to_write_a_call_have_one_key(task):
    key = ResultCache(task).key

    assert len({key(7), key(user_id=7), key(7, "2026-11"), key(7, month="2026-11", detail=False)}) == 1


def test_calls_that_differ_have_different_keys(task):
    key = ResultCache(task).key
    calls = [
        key(7),
        key("7"),
        key(7.0),
        key(True),
        key(None),
        key([7]),
        key(7, "2026-10"),
        key(7, "2026-11", 1),
        key(7, detail=True),
        key(7, extra=1),
        key(date(2026, 11, 22)),
        key("2026-11-22"),
        key(Decimal("7")),
    ]

    assert len(set(calls)) == len(calls)


def test_only_the_arguments_that_make_a_difference_are_in_the_key(task):
    cache = ResultCache(task, vary_on=("user_id", "month"))

    assert cache.key(7, detail=True, colour="red") == cache.key(7)
    assert cache.key(8) != cache.key(7)
    assert ResultCache(task, vary_on="user_id").key(7, "2026-10") == ResultCache(task, vary_on=["user_id"]).key(7)


def test_with_no_argument_that_makes_a_difference_there_is_one_value(task):
    cache = ResultCache(task, vary_on=())

    assert cache.key(7) == cache.key(8)


def test_a_long_key_is_cut_and_stays_its_own(task):
    cache = ResultCache(task)
    long, other = cache.key("x" * 1000), cache.key("x" * 1001)

    assert len(long) == len(other) == LONGEST
    assert long != other
    assert long.startswith("taskkit:result:v1:shop.report:{")


@given(st.text(), st.integers(), st.text(), st.integers())
@settings(max_examples=200)
def test_names_and_versions_are_never_mixed_up(name, version, other_name, other_version):
    same = (name, version) == (other_name, other_version)

    assert (
        key_text("result", f"v{version}:{name}", {}) == key_text("result", f"v{other_version}:{other_name}", {})
    ) is same


def test_arguments_that_do_not_fit_are_named(report):
    with pytest.raises(TypeError, match=r"^shop\.report: missing a required argument: 'user_id'"):
        ResultCache(report).get_or_dispatch()
    with pytest.raises(TypeError, match=r"^shop\.report: got an unexpected keyword argument 'year'"):
        ResultCache(report).get_or_dispatch(7, year=2026)


def test_an_argument_that_no_key_can_hold_is_named_with_the_remedy(station, task):
    with pytest.raises(TypeError, match=r"^shop\.report: detail=<object object at .*an id instead of an object"):
        ResultCache(task).get_or_dispatch(7, detail=object())
    assert station.waiting() == 0


def test_an_argument_that_can_not_travel_is_refused_and_nothing_is_on_its_way(station, task):
    cache = ResultCache(task, vary_on=("user_id",))

    with pytest.raises(TypeError):
        cache.get_or_dispatch(7, detail=object())

    assert cache.get_or_dispatch(7).dispatched


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, "timeout is 0; give seconds, more than 0 and ten years at most, or a timedelta"),
        ({"timeout": timedelta.max}, "give seconds, more than 0 and ten years at most"),
        ({"timeout": "60"}, "timeout is '60'; give seconds"),
        ({"stale_for": -1}, "stale_for is -1; give seconds, 0 or more"),
        ({"lock_timeout": True}, "lock_timeout is True"),
        ({"error_timeout": float("nan")}, "error_timeout is nan"),
        ({"error_timeout": 0}, "error_timeout is 0; give seconds, more than 0"),
        ({"lease": 0}, "lease is 0"),
        ({"options": {"eta": None}}, "leave out eta"),
        ({"version": "a:b"}, "version is 'a:b'; give a number or a word"),
        ({"vary_on": (1,)}, r"vary_on is \(1,\); give names of arguments"),
        ({"tags": (1,)}, r"tags is \(1,\); give texts"),
        ({"cache": None}, "cache is None; give the alias"),
        ({"when_refused": "eager"}, "when_refused is 'eager'; give one of 'refuse', 'inline'"),
        ({"poll_every": 0}, "poll_every is 0; give whole seconds"),
        ({"options": {"task_id": "x"}}, "leave out task_id"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_makes_no_sense_is_named_with_the_remedy(task, options, message):
    with pytest.raises(ConfigurationError, match=message):
        ResultCache(task, **options)


def test_what_is_no_task_is_refused():
    with pytest.raises(ConfigurationError, match="is no task; give what @shared_task"):
        ResultCache(print)


@pytest.mark.parametrize("option", ["vary_on", "tags"])
def test_an_argument_that_the_task_has_not_is_named_at_the_first_call(report, option):
    value = ("year",) if option == "vary_on" else ("year:{year}",)
    cache = ResultCache(report, **{option: value})

    with pytest.raises(ConfigurationError, match=f"{option}: the task has no argument 'year'; its arguments are"):
        cache.get_or_dispatch(7)


def test_a_cache_that_the_project_has_not_is_named(report):
    with pytest.raises(ConfigurationError, match="cache is 'pages'; give the alias of a cache"):
        ResultCache(report, cache="pages").check()


def test_tags_have_keys_of_their_own():
    tags = ["user:7", "user:8", "User:7", "with a blank", "x" * 300, "x" * 301, "#abc", "ünï"]

    keys = [tag_key(tag) for tag in tags]

    assert len(set(keys)) == len(keys)
    assert all(len(key) <= 200 and key.isascii() and " " not in key for key in keys)
