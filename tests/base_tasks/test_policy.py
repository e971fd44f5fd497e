"""A retry policy by itself; what holds for all of them is in test_policy_properties.py."""

import itertools
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta

import pytest

from django_taskkit.backoff import Backoff, FullJitter, NoJitter
from django_taskkit.base_tasks import RetryPolicy


def middle(low, high):
    return (low + high) / 2


def test_its_defaults_are_those_of_the_base_class():
    assert list(RetryPolicy(jitter=False).schedule()) == [1, 2, 4, 8, 16]


def test_delays_grow_from_the_backoff_to_the_cap():
    policy = RetryPolicy(max_retries=6, backoff=10, cap=100, jitter=False)

    assert list(policy.schedule()) == [10, 20, 40, 80, 100, 100]


def test_a_factor_of_one_keeps_them_constant():
    assert list(RetryPolicy(max_retries=3, backoff=30, factor=1, jitter=False).schedule()) == [30, 30, 30]


def test_the_jitter_spreads_them():
    assert list(RetryPolicy(max_retries=3, backoff=100, jitter="equal").schedule(uniform=middle)) == [75, 150, 300]
    assert list(RetryPolicy(max_retries=3, backoff=100, jitter=True).schedule(uniform=middle)) == [50, 100, 200]


def test_the_floor_holds_also_against_the_jitter():
    policy = RetryPolicy(max_retries=2, floor=5, jitter="full")

    assert list(policy.schedule(uniform=lambda low, high: low)) == [5, 5]


def test_the_schedule_ends_where_retry_for_does():
    policy = RetryPolicy(max_retries=None, backoff=4, factor=1, jitter=False, retry_for=timedelta(seconds=13))

    assert list(policy.schedule()) == [4, 4, 4]


def test_without_any_limit_the_schedule_does_not_end():
    policy = RetryPolicy(max_retries=None, jitter=False, cap=3)

    assert list(itertools.islice(policy.schedule(), 5)) == [1, 2, 3, 3, 3]


def test_an_object_may_decide_alone():
    class Fibonacci:
        def delay(self, retry, *, previous=None, uniform=None):
            return [1, 1, 2, 3, 5][retry] + 0.5

    assert list(RetryPolicy(backoff=Fibonacci()).schedule()) == [2, 2, 3, 4, 6]


def test_it_can_not_be_changed():
    with pytest.raises(FrozenInstanceError):
        RetryPolicy().max_retries = 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"backoff": True}, {"backoff": 1}),
        ({"backoff": 60}, {"backoff": timedelta(minutes=1)}),
        ({"jitter": True}, {"jitter": "full"}),
        ({"jitter": FullJitter()}, {"jitter": "full"}),
        ({"jitter": None}, {"jitter": False}),
        ({"jitter": NoJitter()}, {"jitter": False}),
        ({"cap": timedelta(hours=1)}, {"cap": 3600}),
        ({"retry_for": timedelta(hours=6)}, {"retry_for": 21_600}),
    ],
)
def test_the_same_in_another_form_is_equal(one, other):
    assert RetryPolicy(**one) == RetryPolicy(**other)
    assert hash(RetryPolicy(**one)) == hash(RetryPolicy(**other))
    assert repr(RetryPolicy(**one)) == repr(RetryPolicy(**other))


def test_it_is_printed_as_it_can_be_written():
    policy = RetryPolicy(max_retries=None, backoff=5, cap=timedelta(hours=1), jitter=True, retry_for=60)

    assert repr(policy) == (
        "RetryPolicy(max_retries=None, backoff=5.0, factor=2.0, jitter='full', floor=1, cap=3600.0, retry_for=60.0)"
    )
    assert eval(repr(policy)) == policy  # noqa: S307 (our own words)


def test_a_variant_is_made_with_replace():
    assert replace(RetryPolicy(backoff=5), max_retries=1) == RetryPolicy(backoff=5, max_retries=1)


def test_it_can_be_pickled():
    assert pickle.loads(pickle.dumps(RetryPolicy(backoff=5))) == RetryPolicy(backoff=5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"max_retries": -1}, "max_retries: -1 makes no sense; give a whole number of retries"),
        ({"max_retries": 2.5}, "max_retries: 2.5 makes no sense"),
        ({"max_retries": True}, "max_retries: True makes no sense"),
        ({"backoff": 0}, "backoff: 0 makes no sense; give seconds, more than 0"),
        ({"backoff": "fast"}, "backoff: 'fast' makes no sense; give seconds, a timedelta, or an object"),
        ({"backoff": Backoff}, "makes no sense"),
        ({"jitter": "much"}, "jitter: 'much' is not a jitter"),
        ({"floor": 0}, "a floor of 0 makes no sense"),
        ({"floor": 1.5}, "a floor of 1.5 makes no sense"),
        ({"factor": 0.5}, "a factor of 0.5 makes no sense"),
        ({"floor": 30, "cap": 20}, "a cap of 20.0 makes no sense; give at least the floor of 30"),
        ({"cap": "long"}, "cap: 'long' makes no sense"),
        ({"retry_for": -5}, "retry_for: -5 makes no sense; give seconds"),
        ({"backoff": 3600}, "a backoff of 3600 s is above the cap of 600 s"),
    ],
)
def test_nonsense_is_refused_with_the_remedy(options, complaint):
    with pytest.raises(ValueError, match=complaint):
        RetryPolicy(**options)
