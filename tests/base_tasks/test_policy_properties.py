"""What holds for every retry policy and every failure, whatever their numbers."""

import datetime
import math
import random
from datetime import timedelta
from itertools import islice, pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from django_taskkit import backoff
from django_taskkit.backoff import DecorrelatedJitter, EqualJitter, FullJitter, NoJitter
from django_taskkit.base_tasks import Permanent, Retryable, RetryPolicy, Snooze
from django_taskkit.base_tasks.decision import Again, Dead, Failure, decide, decide_retry
from django_taskkit.base_tasks.rules import RetryRules

MONTH = 30 * 86_400

JITTERS = st.sampled_from(
    [True, False, "full", "equal", "decorrelated", NoJitter(), FullJitter(), EqualJitter(), DecorrelatedJitter()]
)
RANDOM = st.randoms(use_true_random=False)
RETRIES = st.one_of(st.integers(0, 20), st.integers(0, 10_000), st.sampled_from([10_000, 10**5, 2**63]))


def seconds(least, most):
    """Seconds as people write them: whole, with a fraction, or as a timedelta."""
    return st.one_of(
        st.integers(math.ceil(least), math.floor(most)),
        st.floats(least, most, allow_nan=False),
        st.floats(max(least, 1e-3), most).map(lambda number: timedelta(seconds=number)),
    )


def in_seconds(value):
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


@st.composite
def policies(draw, jitters=JITTERS, **fixed):
    floor = draw(st.integers(1, 1000))
    cap = draw(seconds(floor, MONTH))
    assume(in_seconds(cap) >= floor)
    first = draw(seconds(0.001, MONTH))
    assume(0 < in_seconds(first) <= in_seconds(cap))
    options = {
        "max_retries": draw(st.none() | st.integers(0, 30)),
        "backoff": first,
        "factor": draw(st.sampled_from([1, 1.0, 1.5, 2, 2.0, 10]) | st.floats(1, 100)),
        "jitter": draw(jitters),
        "floor": floor,
        "cap": cap,
        "retry_for": draw(st.none() | seconds(0, MONTH)),
    }
    return RetryPolicy(**{**options, **fixed})


@given(policy=policies(), retry=RETRIES, previous=st.none() | st.integers(1, MONTH), source=RANDOM)
def test_a_delay_is_whole_seconds_never_below_the_floor_and_never_above_the_cap(policy, retry, previous, source):
    delay = policy.delay(retry, previous=previous, uniform=source.uniform)

    assert type(delay) is int
    assert max(1, policy.floor) <= delay <= policy.cap


@given(policy=policies(), retry=RETRIES, end=st.sampled_from([min, max]))
def test_nor_with_the_least_and_the_greatest_luck(policy, retry, end):
    delay = policy.delay(retry, uniform=lambda low, high: end(low, high))

    assert policy.floor <= delay <= policy.cap


@given(policy=policies(), seed=st.integers(), retries=st.lists(RETRIES, max_size=20))
def test_the_same_seed_makes_the_same_delays(policy, seed, retries):
    def delays():
        source = random.Random(seed)
        return [policy.delay(retry, uniform=source.uniform) for retry in retries]

    assert delays() == delays()


@given(policy=policies(), seed=st.integers())
def test_the_same_seed_makes_the_same_schedule(policy, seed):
    one, other = (list(islice(policy.schedule(uniform=random.Random(seed).uniform), 50)) for _ in range(2))

    assert one == other


@pytest.mark.parametrize("retry", [1023, 1024, 10_000, 10**6])
@pytest.mark.parametrize("factor", [1, 1.0000001, 2, 2.0, 1e300])
@pytest.mark.parametrize("jitter", [True, False, "equal", "decorrelated"])
def test_the_ten_thousandth_attempt_and_those_after_it_overflow_nothing(retry, factor, jitter):
    policy = RetryPolicy(max_retries=None, factor=factor, jitter=jitter, cap=3600)

    assert 1 <= policy.delay(retry, previous=3600) <= 3600


@given(policy=policies(jitters=st.just(False)), retries=st.lists(RETRIES, min_size=2))
def test_without_jitter_a_later_delay_is_never_shorter(policy, retries):
    delays = [policy.delay(retry) for retry in sorted(retries)]

    assert all(earlier <= later for earlier, later in pairwise(delays))


@given(policy=policies(), source=RANDOM)
def test_a_schedule_keeps_to_the_number_of_retries_and_to_the_deadline(policy, source):
    delays = list(islice(policy.schedule(uniform=source.uniform), 100))

    assert len(delays) <= (100 if policy.max_retries is None else policy.max_retries)
    assert policy.retry_for is None or sum(delays) <= policy.retry_for
    assert all(type(delay) is int and policy.floor <= delay <= policy.cap for delay in delays)


@given(policy=policies(jitters=st.just(False)))
def test_a_schedule_ends_for_no_other_reason(policy):
    delays = list(islice(policy.schedule(), 100))

    if len(delays) < (100 if policy.max_retries is None else policy.max_retries):
        assert sum(delays) + policy.delay(len(delays)) > policy.retry_for


@given(policy=policies())
def test_a_policy_is_what_it_prints(policy):
    names = {**vars(backoff), "RetryPolicy": RetryPolicy, "datetime": datetime}

    again = eval(repr(policy), names)  # noqa: S307 (that is what a repr promises)

    assert again == policy
    assert hash(again) == hash(policy)
    assert repr(again) == repr(policy)


@given(policy=policies(), other=policies())
def test_policies_are_equal_if_and_only_if_they_print_the_same(policy, other):
    assert (policy == other) == (repr(policy) == repr(other))
    if policy == other:
        assert hash(policy) == hash(other)


@given(number=st.integers(1, 600))
def test_the_same_number_in_another_form_makes_an_equal_policy(number):
    forms = [number, float(number), timedelta(seconds=number)]
    made = {
        RetryPolicy(backoff=form, cap=cap, retry_for=limit) for form in forms for cap in (600, 600.0) for limit in forms
    }

    assert len(made) == 1


@given(policy=policies(), retry=st.integers(0, 40), seed=st.integers())
def test_a_backoff_object_makes_the_same_delays_as_the_same_numbers(policy, retry, seed):
    built = RetryPolicy(backoff=policy.delays, max_retries=policy.max_retries)

    one, other = (each.delay(retry, uniform=random.Random(seed).uniform) for each in (policy, built))
    assert one == other


@pytest.mark.parametrize("value", ["2", None, [2], True, 1j])
@pytest.mark.parametrize("option", ["factor", "floor"])
def test_what_is_no_number_is_refused_with_a_sentence(option, value):
    with pytest.raises(ValueError, match=option):
        RetryPolicy(**{option: value})


class Broken:
    """A delay policy of somebody's own, which keeps to nothing."""

    def __init__(self, value):
        self.value = value

    def delay(self, retry, *, previous=None, uniform=random.uniform):
        return self.value


@given(value=st.floats(-1e6, 1e6, allow_nan=False))
def test_what_an_object_of_somebodys_own_says_is_made_whole_and_at_least_a_second(value):
    delay = RetryPolicy(backoff=Broken(value)).delay(0)

    assert type(delay) is int
    assert delay >= 1
    assert delay >= value


# Which policy counts


class Refused(ConnectionRefusedError):
    pass


class Missing(KeyError, FileNotFoundError):
    """Two families at once."""


KINDS = (
    Exception,
    OSError,
    ConnectionError,
    ConnectionRefusedError,
    Refused,
    FileNotFoundError,
    LookupError,
    KeyError,
    Missing,
    ArithmeticError,
    ValueError,
)
ERRORS = st.sampled_from([*KINDS, ZeroDivisionError, UnicodeError, RuntimeError]).map(lambda kind: kind())
TREATMENTS = st.one_of(st.just(Permanent), st.integers(0, 9).map(lambda number: RetryPolicy(max_retries=number)))
MIXTURES = st.dictionaries(st.sampled_from(KINDS), TREATMENTS)


def rules(policies=None, **options):
    return RetryRules(
        **{
            "autoretry_for": (Exception,),
            "dont_autoretry_for": (),
            "default": RetryPolicy(max_retries=10),
            "policies": policies or {},
            **options,
        }
    )


@given(mixture=MIXTURES, exc=ERRORS, source=RANDOM)
def test_the_most_specific_class_wins_in_whatever_order_they_are_named(mixture, exc, source):
    shuffled = list(mixture.items())
    source.shuffle(shuffled)
    nearest = next((kind for kind in type(exc).__mro__ if kind in mixture), None)

    chosen = rules(dict(shuffled)).policy_for(exc)

    assert chosen == (rules().default if nearest is None else mixture[nearest])


@given(mixture=MIXTURES, exc=ERRORS, excluded=st.lists(st.sampled_from(KINDS), unique=True))
def test_an_excluded_class_is_retried_only_if_a_more_specific_one_is_named(mixture, exc, excluded):
    order = type(exc).__mro__
    named = next((kind for kind in order if kind in mixture), None)
    barred = next((kind for kind in order if kind in excluded), None)
    chosen = rules(mixture, dont_autoretry_for=tuple(excluded)).policy_for(exc)

    if barred is None:
        assert chosen == (rules().default if named is None else mixture[named])
    elif named is not None and order.index(named) < order.index(barred):
        assert chosen == mixture[named]
    else:
        assert chosen is None


# What becomes of a failure

VERDICTS = st.one_of(
    st.builds(lambda delay: Retryable(delay=delay), st.none() | st.floats(0, MONTH)),
    st.builds(Snooze, st.floats(0, MONTH)),
    st.builds(Permanent),
)
SAYINGS = st.one_of(st.none(), st.floats(0, MONTH), st.timedeltas(timedelta(0), timedelta(days=30)), VERDICTS)
NOW = 1_800_000_000.0


@st.composite
def failures(draw):
    return Failure(
        exc=draw(ERRORS | VERDICTS),
        now=NOW,
        retries=draw(st.integers(0, 40) | st.just(10_000)),
        first_failed_at=draw(st.none() | st.floats(NOW - MONTH, NOW)),
        expires_at=draw(st.none() | st.floats(NOW - 60, NOW + MONTH)),
        previous_delay=draw(st.none() | st.integers(1, MONTH)),
    )


LIMITS = st.none() | st.floats(0, MONTH)


@settings(max_examples=400)
@given(failure=failures(), said=SAYINGS, limit=LIMITS, default=policies(), mixture=MIXTURES, source=RANDOM)
def test_no_retry_is_later_than_the_deadline_or_more_than_allowed(failure, said, limit, default, mixture, source):
    decision = decide(rules(mixture, default=default, retry_for=limit), failure, said=said, uniform=source.uniform)

    if isinstance(decision, Dead):
        assert decision.reason in ("exception", "permanent", "retries_exhausted", "deadline")
        return
    starts_at = NOW + decision.delay
    assert failure.expires_at is None or starts_at < failure.expires_at
    if not decision.counted:
        return
    first = NOW if failure.first_failed_at is None else failure.first_failed_at
    assert limit is None or starts_at - first <= limit
    policy = default if decision.name == "" else mixture[_kind_named(decision.name, mixture)]
    assert policy.retry_for is None or starts_at - first <= policy.retry_for
    assert policy.max_retries is None or failure.retries_of(decision.name) < policy.max_retries


def _kind_named(name, mixture):
    return next(kind for kind in mixture if f"{kind.__module__}.{kind.__qualname__}" == name)


@given(failure=failures(), delay=st.none() | st.floats(0, MONTH), limit=LIMITS, most=st.none() | st.integers(0, 40))
def test_nor_is_one_that_the_task_asks_for_itself(failure, delay, limit, most):
    decision = decide_retry(rules(retry_for=limit), failure, delay=delay, max_retries=most)

    if isinstance(decision, Again):
        first = NOW if failure.first_failed_at is None else failure.first_failed_at
        assert limit is None or NOW + decision.delay - first <= limit
        assert failure.expires_at is None or NOW + decision.delay < failure.expires_at
        assert failure.retries < (rules().default.max_retries if most is None else most)
        assert delay is None or decision.delay == math.ceil(delay)


@given(failure=failures(), said=SAYINGS, default=policies(), seed=st.integers())
def test_a_decision_is_the_same_for_the_same_facts(failure, said, default, seed):
    one, other = (
        decide(rules(default=default), failure, said=said, uniform=random.Random(seed).uniform) for _ in range(2)
    )

    assert one == other


@given(failure=failures(), said=st.floats(0, MONTH))
def test_what_the_task_says_is_never_shortened(failure, said):
    decision = decide(rules(default=RetryPolicy(max_retries=None)), failure, said=said)

    if isinstance(decision, Again) and not isinstance(failure.exc, (Retryable, Snooze)):
        assert decision.delay == math.ceil(said)


@given(asked=st.floats(0, 200_000), most=st.floats(1, 100_000), source=RANDOM)
def test_what_an_error_asks_for_is_never_shortened_except_by_the_longest_that_it_may_ask_for(asked, most, source):
    class Limited(Exception):
        retry_after = asked

    decision = decide(rules(retry_after_max=most), Failure(exc=Limited(), now=NOW), uniform=source.uniform)

    wanted = min(asked, most)
    assert type(decision.delay) is int
    assert wanted <= decision.delay <= math.ceil(wanted + min(max(1, wanted * 0.1), 60)) or decision.delay == 1
