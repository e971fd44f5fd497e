"""The tokens of a retry budget, without store and clock."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_taskkit.base_tasks.gates.token_bucket import Bucket, Terms, dump, load

TERMS = Terms(tokens=10, ratio=0.1, probe_every=5)
FULL = Bucket(10)

terms = st.builds(
    Terms,
    tokens=st.floats(2, 1000),
    ratio=st.floats(0.001, 2),
    probe_every=st.floats(0.1, 600),
)
moments = st.floats(0, 4e9)
events = st.lists(
    st.tuples(st.sampled_from(["failed", "succeeded", "retry_succeeded", "probe"]), moments, st.integers(0, 500)),
    max_size=60,
)


def after(bucket, terms, event, now, times):
    if event == "failed":
        return bucket.failed(terms)
    if event == "succeeded":
        return bucket.succeeded(terms, times)
    if event == "retry_succeeded":
        return bucket.retry_succeeded(terms)
    return bucket.probe(terms, now) or bucket


@given(terms, events)
def test_there_are_never_less_than_no_tokens_or_more_than_all(terms, events):
    bucket = Bucket(terms.tokens)
    for event, now, times in events:
        bucket = after(bucket, terms, event, now, times)

        assert 0 <= bucket.tokens <= terms.tokens


@given(terms, events)
def test_what_is_dumped_is_loaded(terms, events):
    bucket = Bucket(terms.tokens)
    for event, now, times in events:
        bucket = after(bucket, terms, event, now, times)

    loaded = load(dump(bucket, terms), terms)

    assert loaded.tokens == pytest.approx(bucket.tokens, abs=1e-4)
    if not bucket.is_full(terms):
        assert loaded.probed_at == pytest.approx(bucket.probed_at, abs=1e-3)


@given(terms, st.lists(moments, max_size=60))
def test_two_probes_are_never_closer_than_their_distance_whatever_order_the_clocks_say(terms, times):
    bucket = Bucket(0)
    for now in sorted(times):
        before = bucket.probed_at
        probed = bucket.probe(terms, now)

        assert (probed is not None) == (now - before >= terms.probe_every)
        bucket = probed or bucket


@given(st.binary(max_size=40))
def test_what_is_not_ours_is_a_full_bucket_or_one_within_bounds(value):
    assert 0 <= load(value, TERMS).tokens <= 10


def test_half_of_the_tokens_in_failures_stop_the_retries():
    bucket, failures = FULL, 0
    while not bucket.is_spent(TERMS):
        bucket, failures = bucket.failed(TERMS), failures + 1

    assert failures == 5


def test_a_probe_from_a_clock_that_is_ahead_does_not_stop_the_others():
    bucket = Bucket(0, probed_at=10_000)

    assert bucket.probe(TERMS, 9_000) is not None


def test_a_probe_that_succeeds_lets_the_next_one_follow_at_once():
    probing = Bucket(0).probe(TERMS, 1000)

    assert probing.probe(TERMS, 1001) is None
    assert probing.retry_succeeded(TERMS).probe(TERMS, 1001) is not None


def test_six_probes_that_succeed_open_an_empty_budget():
    bucket, probes = Bucket(0), 0
    while bucket.is_spent(TERMS):
        bucket, probes = bucket.retry_succeeded(TERMS), probes + 1

    assert probes == 6


def test_at_two_failures_in_a_hundred_calls_no_retry_ever_waits():
    chance, bucket = random.Random(5), FULL
    for _ in range(100_000):
        bucket = bucket.failed(TERMS) if chance.random() < 0.02 else bucket.succeeded(TERMS)

        assert not bucket.is_spent(TERMS)
