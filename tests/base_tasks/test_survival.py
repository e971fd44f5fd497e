"""Which outage the retries of a task outlive, run through without running it."""

import math
import random
from dataclasses import dataclass
from datetime import timedelta

import pytest

from django_taskkit.base_tasks import RetryPolicy
from django_taskkit.base_tasks.survival import HORIZON, Spread, retries_needed, survival_of


def starts(survival):
    return [retry.start.median for retry in survival.retries]


class TestWithoutChance:
    def test_everything_is_exact(self):
        survival = survival_of(RetryPolicy(jitter=False))

        assert survival.is_exact
        assert [retry.delay for retry in survival.retries] == [Spread(n, n, n) for n in (1, 2, 4, 8, 16)]
        assert starts(survival) == [1, 3, 7, 15, 31]
        assert survival.span == Spread(31, 31, 31)
        assert survival.survived() == survival.survived(0.5) == survival.survived(1) == 31

    def test_an_outage_that_ends_with_the_last_retry_is_survived(self):
        survival = survival_of(RetryPolicy(jitter=False))

        assert survival.odds(31) == 1
        assert survival.odds(31.1) == 0

    def test_a_retry_is_wasted_if_it_comes_before_the_end_of_the_outage(self):
        survival = survival_of(RetryPolicy(jitter=False))

        assert [survival.wasted(outage) for outage in (0, 1, 7, 8, 31, 1000)] == [0, 0, 2, 3, 4, 5]

    def test_without_retries_nothing_is_survived(self):
        survival = survival_of(RetryPolicy(max_retries=0))

        assert survival.retries == ()
        assert survival.survived() == 0
        assert survival.odds(1) == 0
        assert survival.wasted(60) == 0


class TestWithChance:
    def test_the_odds_are_those_of_the_distribution(self):
        # One delay, uniform over 0 to 4 s, rounded, at least 1: so 1 s in 3/8 of cases, 4 s in 1/8.
        survival = survival_of(RetryPolicy(max_retries=1, backoff=4, jitter="full"))

        assert survival.odds(1) == 1
        assert survival.odds(2) == pytest.approx(5 / 8, abs=0.02)
        assert survival.odds(4) == pytest.approx(1 / 8, abs=0.02)
        assert survival.odds(4.1) == 0
        assert survival.retries[0].soon == pytest.approx(3 / 8, abs=0.02)
        assert survival.retries[0].longer_than(3) == pytest.approx(1 / 8, abs=0.02)
        assert survival.wasted(4) == pytest.approx(7 / 8, abs=0.02)

    def test_the_default_survives_18_seconds_nearly_always_and_23_every_other_time(self):
        survival = survival_of(RetryPolicy())

        assert survival.survived() == pytest.approx(18, abs=1)
        assert survival.survived(0.5) == pytest.approx(23, abs=1)
        assert survival.span == Spread(16, survival.span.median, 31)

    def test_shortest_and_longest_times_are_exact_even_where_they_are_rare(self):
        survival = survival_of(RetryPolicy(max_retries=8, jitter="decorrelated", cap=10_000), samples=10)

        assert [retry.start.least for retry in survival.retries] == [1, 2, 3, 4, 5, 6, 7, 8]
        assert survival.span.least == 8
        assert survival.survived(1) == 8
        assert survival.span.most == sum(3**n for n in range(1, 9))

    def test_the_same_seed_gives_the_same_and_another_one_doesnt(self):
        first, second, third = (survival_of(RetryPolicy(), seed=seed) for seed in (3, 3, 4))

        assert first == second
        assert first != third

    def test_the_state_of_the_process_is_not_touched(self):
        random.seed(7)
        expected = random.random()
        random.seed(7)

        survival_of(RetryPolicy())

        assert random.random() == expected

    @pytest.mark.parametrize(("retries", "tasks"), [(5, 10_000), (25, 10_000), (400, 1000), (HORIZON, 200)])
    def test_a_task_with_more_retries_is_run_through_less_often(self, retries, tasks):
        assert len(survival_of(RetryPolicy(max_retries=retries)).runs) == tasks


class TestDeadlines:
    def test_a_deadline_ends_the_retries(self):
        survival = survival_of(RetryPolicy(jitter=False, retry_for=10))

        assert starts(survival) == [1, 3, 7]
        assert survival.survived() == 7

    def test_what_comes_before_it_only_at_times_has_odds(self):
        survival = survival_of(RetryPolicy(max_retries=None, retry_for=timedelta(seconds=20)))

        odds = [retry.odds for retry in survival.retries]
        assert odds[0] == 1
        assert 0 < odds[-1] < 1
        assert odds == sorted(odds, reverse=True)
        assert max(retry.start.most for retry in survival.retries) == 20
        assert survival.span.most == 20
        assert survival.span.least >= 8


class TestWithoutEnd:
    def test_any_outage_is_survived(self):
        survival = survival_of(RetryPolicy(max_retries=None))

        assert survival.is_endless
        assert survival.survived() == math.inf
        assert survival.odds(10**9) == 1
        assert survival.wasted(600) == pytest.approx(9, abs=0.5)

    def test_more_retries_than_can_be_looked_at_are_no_endless_ones(self):
        survival = survival_of(RetryPolicy(max_retries=HORIZON + 1, jitter=False))

        assert survival.is_cut
        assert not survival.is_endless
        assert len(survival.retries) == HORIZON
        assert survival.odds(10**9) == 0


class TestPoliciesOfOnesOwn:
    def test_one_that_brings_its_own_randomness_is_not_taken_for_exact(self):
        class Dice:
            def schedule(self, *, uniform=None):
                yield from (random.randint(1, 10**6) for _ in range(3))

        survival = survival_of(Dice(), samples=50)

        assert not survival.is_exact
        assert survival.span.least < survival.span.most

    def test_one_that_is_the_same_at_both_ends_only_is_not_taken_for_exact(self):
        @dataclass(frozen=True)
        class Hill:
            def delay(self, retry, *, previous=None, uniform=random.uniform):
                return 11 - round(abs(uniform(-10, 10)))

        survival = survival_of(RetryPolicy(max_retries=1, backoff=Hill()))

        assert not survival.is_exact
        assert survival.span == Spread(1, survival.span.median, 11)

    def test_one_whose_delays_fall_where_chance_rises_has_the_right_extremes(self):
        @dataclass(frozen=True)
        class Contrary:
            def delay(self, retry, *, previous=None, uniform=random.uniform):
                return 11 - round(uniform(1, 10))

        survival = survival_of(RetryPolicy(max_retries=2, backoff=Contrary()), samples=3)

        assert survival.retries[0].delay.least == 1
        assert survival.retries[1].start.most == 20


class TestRetriesNeeded:
    @pytest.mark.parametrize("odds", [0.5, 0.99, 1])
    @pytest.mark.parametrize("jitter", ["equal", "full", "decorrelated", False])
    def test_are_enough_and_one_less_is_not(self, jitter, odds):
        needed = retries_needed(RetryPolicy(jitter=jitter, retry_for=5), 120, odds=odds)

        def survives(retries):
            return survival_of(RetryPolicy(max_retries=retries, jitter=jitter), seed=2).survived(odds)

        assert survives(needed + (0 < odds < 1)) >= 120  # another seed may be on the other side of the edge
        assert survives(needed - 1 - (0 < odds < 1)) < 120

    def test_there_may_be_no_such_number(self):
        assert retries_needed(RetryPolicy(cap=1), HORIZON + 1) is None
        assert retries_needed(RetryPolicy(cap=1, jitter=False), HORIZON) == HORIZON


def test_whatever_the_policy_the_numbers_fit_together():
    hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
    st = hypothesis.strategies
    policies = st.builds(
        RetryPolicy,
        max_retries=st.integers(0, 12),
        backoff=st.floats(0.1, 60),
        jitter=st.sampled_from(["equal", "full", "decorrelated", False]),
        factor=st.floats(1, 4),
        cap=st.floats(60, 5000),
        retry_for=st.none() | st.floats(0, 20_000),
    )

    @hypothesis.settings(max_examples=150, deadline=None)
    @hypothesis.given(policy=policies, outage=st.floats(0, 30_000), odds=st.floats(0.01, 0.99))
    def fits(policy, outage, odds):
        survival = survival_of(policy, samples=60)

        assert survival.odds(survival.survived(odds)) >= odds - 1e-9
        assert survival.survived(1) <= survival.survived(odds) <= survival.span.most
        assert 0 <= survival.wasted(outage) <= len(survival.retries)
        assert survival.odds(outage) >= survival.odds(outage + 1)
        for retry in survival.retries:
            assert 1 <= retry.delay.least <= retry.delay.median <= retry.delay.most
            assert retry.start.least <= retry.start.median <= retry.start.most
            assert retry.number <= retry.start.least

    fits()
