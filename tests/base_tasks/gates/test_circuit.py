"""A circuit breaker's state machine, without store and clock."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from django_taskkit.base_tasks.gates.circuit import Circuit, Limits, State, dump, load

LIMITS = Limits(failure_rate=0.5, minimum_calls=10, window=60, open_for=30, open_for_max=100, probes=3, lease=300)
NOW = 1_000_000.0


def opened(now=NOW, limits=LIMITS):
    circuit = Circuit().counted(0, limits.minimum_calls, now, limits)
    assert circuit.state is State.OPEN
    return circuit


def half_open(now=NOW):
    return opened(now - 30).enter("first", now, LIMITS)


def test_too_few_calls_open_nothing():
    assert Circuit().counted(0, 9, NOW, LIMITS).state is State.CLOSED


def test_a_failure_rate_below_the_limit_opens_nothing():
    assert Circuit().counted(11, 10, NOW, LIMITS).state is State.CLOSED


def test_a_failure_that_brings_the_rate_to_the_limit_opens_it():
    assert Circuit().counted(10, 9, NOW, LIMITS).counted(0, 1, NOW, LIMITS).state is State.OPEN


def test_a_success_never_opens_it():
    assert Circuit().counted(0, 9, NOW, LIMITS).counted(1, 0, NOW, LIMITS).state is State.CLOSED


def test_failures_are_forgotten_when_the_window_has_gone_by():
    circuit = Circuit().counted(0, 9, NOW, LIMITS)

    assert circuit.counted(0, 1, NOW + 50, LIMITS).state is State.OPEN
    assert circuit.counted(0, 1, NOW + 61, LIMITS).state is State.CLOSED


def test_while_it_is_open_nobody_gets_in():
    assert opened().enter("a", NOW + 29.9, LIMITS) is None
    assert opened().rest(NOW + 20, LIMITS) == pytest.approx(10)


def test_when_its_time_is_up_as_many_as_there_are_probes_get_in():
    circuit = half_open()
    for token in ("second", "third"):
        circuit = circuit.enter(token, NOW, LIMITS)

    assert circuit.state is State.HALF_OPEN
    assert circuit.enter("fourth", NOW, LIMITS) is None


def test_a_probe_that_succeeds_leaves_no_room_for_more_than_are_wanted():
    circuit = half_open().probed("first", True, NOW, LIMITS)
    for token in ("second", "third"):
        circuit = circuit.enter(token, NOW, LIMITS)

    assert circuit.enter("fourth", NOW, LIMITS) is None


def test_all_probes_that_succeed_close_it_and_forget_the_past():
    circuit = half_open().enter("b", NOW, LIMITS).enter("c", NOW, LIMITS)
    for token in ("first", "b", "c"):
        assert circuit.state is State.HALF_OPEN
        circuit = circuit.probed(token, True, NOW, LIMITS)

    assert circuit == Circuit()


def test_one_probe_that_fails_opens_it_for_twice_as_long_up_to_a_limit():
    circuit, now, times = opened(), NOW, []
    for _ in range(4):
        times.append(circuit.rest(now, LIMITS))
        now += times[-1]
        circuit = circuit.enter("probe", now, LIMITS).probed("probe", False, now, LIMITS)

    assert times == pytest.approx([30, 60, 100, 100])


def test_a_probe_that_says_nothing_gives_its_place_back():
    circuit = half_open().probed("first", None, NOW, LIMITS)

    assert (circuit.state, circuit.leases, circuit.passed) == (State.HALF_OPEN, (), 0)


def test_the_place_of_a_probe_that_died_is_free_again_and_its_word_no_longer_counts():
    circuit = half_open().enter("b", NOW, LIMITS).enter("c", NOW, LIMITS)

    assert circuit.enter("d", NOW + 299, LIMITS) is None
    circuit = circuit.enter("d", NOW + 300, LIMITS)
    assert [token for token, _ in circuit.leases] == ["d"]
    assert circuit.probed("first", False, NOW + 300, LIMITS) == circuit


def test_a_run_from_before_it_opened_changes_nothing_when_it_ends():
    for circuit in (opened(), half_open()):
        assert circuit.counted(0, 5, NOW, LIMITS) == circuit


def test_an_opening_from_a_clock_that_is_ahead_does_not_hold_for_longer_than_an_opening():
    circuit = opened(NOW + 100_000)

    assert circuit.rest(NOW, LIMITS) == 0
    assert circuit.enter("a", NOW, LIMITS).state is State.HALF_OPEN


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"null", b'{"state":"ajar"}', b"\xff", b'{"state":"open"}'])
def test_what_is_not_ours_is_a_closed_circuit(value):
    assert load(value) == Circuit()


class AnyOrder(RuleBasedStateMachine):
    """Bodies that come and go in any order, some of which die without a word."""

    limits = Limits(failure_rate=0.5, minimum_calls=4, window=20, open_for=5, open_for_max=40, probes=2, lease=30)

    def __init__(self):
        super().__init__()
        self.now = NOW
        self.circuit = Circuit()
        self.running = {}
        self.number = 0

    @rule(seconds=st.floats(0, 12))
    def time_goes_by(self, seconds):
        self.now += seconds

    @rule()
    def a_body_comes(self):
        token = str(self.number)
        self.number += 1
        before = self.circuit
        after = before.enter(token, self.now, self.limits)
        if after is None:
            assert before.state is not State.CLOSED
            return
        assert not (before.state is State.OPEN and self.now < before.until)
        if after.state is State.HALF_OPEN:
            self.running[token] = self.now
        self.circuit = after

    @precondition(lambda self: self.running)
    @rule(data=st.data(), succeeded=st.sampled_from([True, False, None]))
    def a_probe_ends(self, data, succeeded):
        token = data.draw(st.sampled_from(sorted(self.running)))
        del self.running[token]
        self.circuit = self.circuit.probed(token, succeeded, self.now, self.limits)

    @rule(successes=st.integers(0, 5), failures=st.integers(0, 5))
    def others_end(self, successes, failures):
        self.circuit = self.circuit.counted(successes, failures, self.now, self.limits)

    @invariant()
    def no_more_bodies_than_probes_are_in_while_it_is_half_open(self):
        if self.circuit.state is State.HALF_OPEN:
            held = dict(self.circuit.leases)
            living = [token for token in self.running if token in held and self.now < held[token]]
            assert len(living) + self.circuit.passed <= self.limits.probes

    @invariant()
    def it_is_open_for_no_longer_than_the_limit(self):
        assert 0 <= self.circuit.rest(self.now, self.limits) <= self.limits.open_for_max

    @invariant()
    def what_is_dumped_is_loaded(self):
        assert load(dump(self.circuit)) == self.circuit

    def teardown(self):
        """However it stands, it can be closed again by bodies that succeed."""
        now, circuit = self.now + 10_000, self.circuit
        for number in range(self.limits.probes):
            circuit = circuit.enter(f"last{number}", now, self.limits)
            if circuit.state is State.HALF_OPEN:
                circuit = circuit.probed(f"last{number}", True, now, self.limits)
        assert circuit.state is State.CLOSED


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(st.integers(1, 10_000))
def test_the_time_it_is_open_never_overflows(openings):
    assert 30 <= LIMITS.open_time(openings) <= 100
