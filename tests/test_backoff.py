"""Delay policies are pure: the same randomness gives the same delays."""

import math
import random
from dataclasses import dataclass

import pytest

from django_taskkit.backoff import Backoff, DecorrelatedJitter, EqualJitter, FullJitter, NoJitter, jitter_of


def low(start, end):
    return start


def high(start, end):
    return end


def middle(start, end):
    return (start + end) / 2


def test_delays_double_until_the_cap():
    policy = Backoff(base=1, cap=20, jitter=NoJitter())

    assert list(policy.schedule(7)) == [1, 2, 4, 8, 16, 20, 20]


def test_a_base_with_a_fraction_is_rounded_after_it_has_grown():
    """Celery floors 1.9 to 1 before doubling it."""
    policy = Backoff(base=1.9, jitter=NoJitter())

    assert list(policy.schedule(4)) == [2, 4, 8, 15]


def test_a_base_below_a_second_still_grows():
    policy = Backoff(base=0.25, jitter=NoJitter())

    assert list(policy.schedule(6)) == [1, 1, 1, 2, 4, 8]


@pytest.mark.parametrize(("uniform", "delay"), [(low, 4), (middle, 6), (high, 8)])
def test_equal_jitter_keeps_at_least_half_of_the_wait(uniform, delay):
    assert Backoff(base=8, jitter=EqualJitter()).delay(0, uniform=uniform) == delay


@pytest.mark.parametrize(("uniform", "delay"), [(low, 1), (middle, 4), (high, 8)])
def test_full_jitter_reaches_down_to_the_floor_and_no_further(uniform, delay):
    assert Backoff(base=8, jitter=FullJitter()).delay(0, uniform=uniform) == delay


def test_decorrelated_jitter_grows_from_the_delay_before():
    policy = Backoff(base=2, cap=50, jitter=DecorrelatedJitter())

    assert list(policy.schedule(5, uniform=high)) == [6, 18, 50, 50, 50]
    assert policy.delay(3, previous=10, uniform=low) == 2


@pytest.mark.parametrize("jitter", [True, False, "full", "equal", "decorrelated"])
def test_every_delay_is_a_whole_number_between_floor_and_cap(jitter):
    policy = Backoff(base=0.7, cap=33.3, floor=2, jitter=jitter_of(jitter))
    uniform = random.Random(7).uniform

    delays = [policy.delay(retry, previous=retry, uniform=uniform) for retry in range(200)]

    assert all(isinstance(delay, int) and 2 <= delay <= 33 for delay in delays)


def test_a_retry_number_beyond_what_floats_hold_waits_for_the_cap():
    assert Backoff(jitter=NoJitter()).delay(100_000) == 600


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [
        ({"base": 0}, "a base of 0 makes no sense; give more than 0 seconds"),
        ({"base": math.inf}, "a base of inf makes no sense"),
        ({"factor": 0.5}, "a factor of 0.5 makes no sense; give 1 or more"),
        ({"floor": 0}, "a floor of 0 makes no sense"),
        ({"cap": 0.9}, r"a cap of 0.9 makes no sense; give at least the floor of 1 second"),
        ({"floor": 5, "cap": 4}, r"a cap of 4 makes no sense; give at least the floor of 5 second"),
    ],
)
def test_numbers_that_make_no_sense_are_refused_with_the_remedy(numbers, complaint):
    with pytest.raises(ValueError, match=complaint):
        Backoff(**numbers)


def test_policies_are_compared_by_what_they_do():
    assert Backoff(base=2) == Backoff(base=2)
    assert Backoff(base=2) != Backoff(base=3)


def test_true_is_full_jitter_as_in_celery():
    assert jitter_of(True) == jitter_of("full") == FullJitter()


def test_a_jitter_of_ones_own_is_used_as_it_is():
    @dataclass(frozen=True)
    class Tenth:
        def spread(self, value, *, base, cap, previous, uniform):
            return value / 10

    assert Backoff(base=50, jitter=jitter_of(Tenth())).delay(0) == 5


def test_an_unknown_jitter_is_refused_with_the_names_of_the_known():
    with pytest.raises(ValueError, match="'fulll' is not a jitter; give True, False, 'full', 'equal', 'decorrelated'"):
        jitter_of("fulll")
