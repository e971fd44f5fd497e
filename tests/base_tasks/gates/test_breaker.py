"""Circuit breakers at the gate of their tasks; the state machine has tests of its own."""

import logging
import threading
from datetime import timedelta

import pytest
from celery.app.task import Context

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.gates import Outcome, Run, Wait, breaker_view
from django_taskkit.base_tasks.gates.breaker import CircuitBreaker, State, gate_of
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.models import DeadLetter, OutboxMessage
from django_taskkit.signals import BreakerChanged, breaker_changed

pytestmark = pytest.mark.usefixtures("store")

BREAKER = CircuitBreaker("stripe", minimum_calls=4, open_for=30, probes=2)


class Clock:
    """The time of day and the monotonic clock of the gate, moved by hand."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def time(self):
        return self.now

    monotonic = time


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("django_taskkit.base_tasks.gates.breaker.time", clock)
    return clock


@pytest.fixture
def changes():
    """What was announced, as pairs of states."""
    seen = []

    def receiver(sender, event, **kwargs):
        assert sender is BreakerChanged
        seen.append(event)

    breaker_changed.connect(receiver)
    yield seen
    breaker_changed.disconnect(receiver)


def gate(breaker=BREAKER):
    class Task:
        name = "t.task"

    Task.breaker = breaker
    return gate_of(Task())


def a_run(retries=0):
    return Run(task=None, request=Context(id="a", retries=retries), args=(), kwargs={})


def let_in(gate=None, retries=0):
    """A run that was let in; None if it has to wait."""
    run = a_run(retries)
    try:
        assert (gate or globals()["gate"]()).enter(run) is None
    except Wait:
        return None
    return run


def fail(times, gate=None):
    gate = gate or globals()["gate"]()
    for _ in range(times):
        run = let_in(gate)
        gate.leave(run, Outcome.RETRIED)


def other_process():
    """Forget what this process knows, as if it were another one."""
    breaker_view.views.clear()


def test_a_breaker_that_nobody_has_used_is_closed():
    assert BREAKER.state() is State.CLOSED
    assert let_in()


def test_it_opens_when_enough_calls_have_failed_and_then_nobody_gets_in(clock):
    fail(4)

    assert BREAKER.state() is State.OPEN
    for retries in (0, 3):
        with pytest.raises(Wait, match="the breaker 'stripe' is open") as caught:
            gate().enter(a_run(retries))
        assert caught.value.at_least == pytest.approx(30)


def test_the_failure_that_opens_it_and_those_that_end_later_wait_with_their_retries(clock):
    late = let_in()
    fail(3)
    opening = let_in()

    wait = gate().leave(opening, Outcome.RETRIED)
    clock.now += 10
    later = gate().leave(late, Outcome.RETRIED)

    assert (wait.at_least, later.at_least) == (pytest.approx(30), pytest.approx(20))


def test_successes_of_other_processes_count_against_the_failures_of_this_one(clock):
    for _ in range(20):
        gate().leave(let_in(), Outcome.SUCCEEDED)
    clock.now += 7
    let_in()  # tells how many those were
    other_process()

    fail(10)

    assert BREAKER.state() is State.CLOSED


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        (Outcome.RETRIED, State.OPEN),
        (Outcome.EXHAUSTED, State.OPEN),
        (Outcome.SUCCEEDED, State.CLOSED),
        (Outcome.DIED, State.CLOSED),
        (Outcome.SNOOZED, State.CLOSED),
        (Outcome.ENDED, State.CLOSED),
    ],
)
def test_which_outcomes_are_failures(clock, outcome, state):
    fail(3)

    gate().leave(let_in(), outcome)

    assert BREAKER.state() is state


def test_after_its_time_probes_get_in_and_close_it_if_all_succeed(clock, changes):
    fail(4)
    clock.now += 30
    probes = [let_in(retries=retries) for retries in (0, 1)]
    assert all(probes)
    assert let_in() is None, "there are two probes"

    for probe, state in zip(probes, (State.HALF_OPEN, State.CLOSED), strict=True):
        gate().leave(probe, Outcome.SUCCEEDED)
        assert BREAKER.state() is state

    assert let_in()
    assert [(event.old, event.new) for event in changes] == [
        ("closed", "open"),
        ("open", "half_open"),
        ("half_open", "closed"),
    ]


def test_a_probe_that_fails_opens_it_for_twice_as_long(clock, changes):
    fail(4)
    clock.now += 30
    probe = let_in()

    wait = gate().leave(probe, Outcome.EXHAUSTED)

    assert wait is not None, "its last retry is not used up by an outage"
    assert BREAKER.state() is State.OPEN
    assert [(event.new, event.open_for) for event in changes] == [("open", 30), ("half_open", None), ("open", 60)]


def test_a_probe_that_has_to_wait_for_another_gate_gives_its_place_back(clock):
    fail(4)
    clock.now += 30

    for _ in range(5):
        gate().leave(let_in(), Outcome.SNOOZED)

    assert BREAKER.state() is State.HALF_OPEN


def test_probes_whose_workers_died_do_not_block_it_for_ever(clock):
    fail(4)
    clock.now += 30
    assert let_in()
    assert let_in()

    clock.now += 299
    assert let_in() is None
    clock.now += 1
    for _ in range(2):
        gate().leave(let_in(), Outcome.SUCCEEDED)

    assert BREAKER.state() is State.CLOSED


def test_the_change_says_on_what_it_opened(clock, changes):
    gate().leave(let_in(), Outcome.SUCCEEDED)
    fail(3)

    (event,) = changes
    assert (event.name, event.calls, event.failure_rate, event.open_for) == ("stripe", 4, 0.75, 30)


def test_of_many_threads_that_open_it_one_says_so(changes):
    stripe = gate(CircuitBreaker("stripe", minimum_calls=1))
    runs = [let_in(stripe) for _ in range(8)]
    threads = [threading.Thread(target=stripe.leave, args=(run, Outcome.RETRIED)) for run in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [event.new for event in changes] == ["open"]


def test_a_receiver_that_raises_harms_nobody(clock):
    def receiver(**kwargs):
        raise RuntimeError

    breaker_changed.connect(receiver)
    try:
        fail(4)
    finally:
        breaker_changed.disconnect(receiver)

    assert BREAKER.state() is State.OPEN


def test_a_breaker_that_is_reset_is_closed_and_has_forgotten_its_failures(clock, changes):
    fail(4)

    BREAKER.reset()
    fail(3)

    assert BREAKER.state() is State.CLOSED
    assert [(event.old, event.new) for event in changes] == [("closed", "open"), ("open", "closed")]


def test_while_it_is_closed_the_store_is_asked_about_once_a_second(clock, monkeypatch):
    from django_taskkit.stores.opening import shared_store

    store, asked = shared_store(), []
    read, swap = store.read, store.swap
    monkeypatch.setattr(store, "read", lambda key: asked.append("read") or read(key))
    monkeypatch.setattr(store, "swap", lambda *args, **kwargs: asked.append("swap") or swap(*args, **kwargs))

    for _ in range(12_000):
        gate().leave(let_in(), Outcome.SUCCEEDED)
        clock.now += 0.001

    assert 10 <= asked.count("read") <= 14
    assert asked.count("swap") <= 3


def test_a_process_notices_within_a_second_that_another_has_opened_it(clock):
    assert let_in()
    here = dict(breaker_view.views)
    other_process()
    fail(4)
    breaker_view.views.update(here)

    assert let_in(), "it has just looked"
    clock.now += 1
    assert let_in() is None


def test_with_the_store_out_of_reach_everything_runs_and_one_warning_says_so(out_of_reach, caplog):
    with caplog.at_level(logging.WARNING, "django_taskkit"):
        for _ in range(30):
            run = let_in()
            assert run
            assert gate().leave(run, Outcome.RETRIED) is None

    (record,) = caplog.records
    assert "the breaker 'stripe' lets every task through" in record.getMessage()


@pytest.mark.parametrize(
    "options",
    [
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"failure_rate": True},
        {"failure_rate": "half"},
        {"minimum_calls": 0},
        {"minimum_calls": 1.5},
        {"probes": 0},
        {"window": 0},
        {"window": timedelta(0)},
        {"lease": -1},
        {"open_for": float("inf")},
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_value(options):
    with pytest.raises(ConfigurationError) as caught:
        CircuitBreaker("stripe", **options)

    ((option, value),) = options.items()
    assert f"{option}={value!r}" in str(caught.value)


def test_it_may_not_be_open_for_longer_than_its_longest():
    with pytest.raises(ConfigurationError, match=r"open_for=400.0 is longer than open_for_max=300.0"):
        CircuitBreaker("stripe", open_for=400)


def test_tasks_behind_an_open_breaker_wait_in_the_outbox_and_use_up_no_retry(station, relay_is_alive):
    calls = []

    def fail():
        calls.append(1)
        raise ConnectionError("down")

    fail = station.app.task(base=BaseTaskWithRetry, name="t.fail", breaker=BREAKER, max_retries=1)(fail)
    for _ in range(10):
        fail.delay()

    station.run_all(100)

    assert len(calls) == 4
    assert OutboxMessage.objects.count() == 10
    assert not DeadLetter.objects.exists()
