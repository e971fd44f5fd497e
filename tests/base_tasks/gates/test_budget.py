"""Retry budgets at the gate of their tasks; the tokens themselves have tests of their own."""

import logging
import threading
from datetime import timedelta

import pytest
from celery.app.task import Context

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.gates import Outcome, Run, Wait, budget_ledger
from django_taskkit.base_tasks.gates.budget import RetryBudget, gate_of
from django_taskkit.base_tasks.gates.in_use import Standing, in_use
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.models import DeadLetter, OutboxMessage

pytestmark = pytest.mark.usefixtures("store")


def first():
    return Run(task=None, request=Context(id="a", retries=0), args=(), kwargs={})


def retry():
    return Run(task=None, request=Context(id="a", retries=1), args=(), kwargs={})


def gate(budget):
    class Task:
        name = "t.task"
        retry_budget = budget

    return gate_of(Task())


def nothing():
    pass


def spend(budget):
    for _ in range(int(budget.tokens) + 1):
        gate(budget).leave(first(), Outcome.RETRIED)


def is_let_in(gate, run):
    try:
        assert gate.enter(run) is None
    except Wait:
        return False
    return True


BUDGET = RetryBudget("stripe", probe_every=3600)


def test_a_budget_that_nobody_has_used_is_full(store):
    assert BUDGET.level() == 10
    assert is_let_in(gate(BUDGET), retry())


def test_a_failure_takes_a_token_and_more_than_half_of_them_let_retries_go():
    stripe = gate(BUDGET)

    answers = [stripe.leave(first(), Outcome.RETRIED) for _ in range(6)]

    assert [answer is None for answer in answers] == [True, True, True, True, False, False]
    assert BUDGET.level() == 4
    assert str(answers[-1]) == "the retry budget 'stripe' is spent"


def test_while_it_is_spent_first_attempts_run_and_retries_wait():
    spend(BUDGET)
    assert is_let_in(gate(BUDGET), retry()), "the first retry is a probe"

    assert is_let_in(gate(BUDGET), first())
    with pytest.raises(Wait, match="'stripe' is spent"):
        gate(BUDGET).enter(retry())


def test_a_wait_is_as_long_as_the_budget_says():
    brief = RetryBudget("stripe", wait=timedelta(seconds=2), wait_max=7)
    spend(brief)

    wait = gate(brief).leave(first(), Outcome.RETRIED)

    assert (wait.base, wait.cap) == (2, 7)


def test_budgets_of_other_names_know_nothing_of_it():
    spend(BUDGET)

    assert RetryBudget("adyen").level() == 10


@pytest.mark.parametrize(
    ("outcome", "level"),
    [
        (Outcome.RETRIED, 5),
        (Outcome.EXHAUSTED, 5),
        (Outcome.SUCCEEDED, 6.1),
        (Outcome.DIED, 6),
        (Outcome.SNOOZED, 6),
        (Outcome.ENDED, 6),
    ],
)
def test_what_each_outcome_costs_or_gives(outcome, level):
    stripe = gate(BUDGET)
    for _ in range(4):
        stripe.leave(first(), Outcome.RETRIED)
    budget_ledger.ledgers.clear()  # as in another process

    answer = stripe.leave(first(), outcome)

    assert BUDGET.level() == pytest.approx(level)
    assert (answer is None) == (outcome not in (Outcome.RETRIED, Outcome.EXHAUSTED))


def test_probes_that_succeed_open_it_again_one_after_the_other():
    spend(BUDGET)
    stripe = gate(BUDGET)

    for _ in range(6):
        assert is_let_in(stripe, retry())
        assert not is_let_in(stripe, retry()), "only one probe at a time"
        stripe.leave(retry(), Outcome.SUCCEEDED)

    assert all(is_let_in(stripe, retry()) for _ in range(3))


def test_a_probe_that_fails_is_followed_by_none_until_its_time():
    spend(BUDGET)
    stripe = gate(BUDGET)
    assert is_let_in(stripe, retry())

    stripe.leave(retry(), Outcome.RETRIED)

    assert not is_let_in(stripe, retry())


def test_first_attempts_that_succeed_open_it_too():
    spend(BUDGET)
    stripe = gate(BUDGET)
    for _ in range(60):
        stripe.leave(first(), Outcome.SUCCEEDED)
    stripe.leave(retry(), Outcome.SUCCEEDED)  # which tells of all at once

    assert BUDGET.level() > 5


def test_a_budget_that_is_reset_is_full():
    spend(BUDGET)

    BUDGET.reset()

    assert BUDGET.level() == 10
    assert is_let_in(gate(BUDGET), retry())


class Counting:
    """A store that counts how often it is asked."""

    def __init__(self, store):
        self.store, self.asked = store, 0

    def read(self, key):
        self.asked += 1
        return self.store.read(key)

    def swap(self, key, old, new, *, ttl):
        self.asked += 1
        return self.store.swap(key, old, new, ttl=ttl)


def test_successes_of_a_full_budget_ask_the_store_about_once_a_second(store, monkeypatch):
    counting = Counting(store)
    monkeypatch.setattr("django_taskkit.base_tasks.gates.budget.shared_store", lambda: counting)
    now = iter(number / 1000 for number in range(100_000))
    monkeypatch.setattr("django_taskkit.base_tasks.gates.budget.time.monotonic", lambda: next(now))
    stripe = gate(BUDGET)

    for _ in range(5000):
        run = first()
        stripe.enter(run)
        stripe.leave(run, Outcome.SUCCEEDED)

    assert 4 <= counting.asked <= 6


def test_successes_of_just_now_count_before_the_failure_that_follows_them():
    stripe = gate(BUDGET)
    stripe.leave(first(), Outcome.SUCCEEDED)  # looks: it is full
    for _ in range(4):
        gate(BUDGET).leave(first(), Outcome.RETRIED)
    for _ in range(30):
        stripe.leave(first(), Outcome.SUCCEEDED)

    stripe.leave(first(), Outcome.RETRIED)

    assert BUDGET.level() == pytest.approx(8)


def test_successes_of_long_ago_do_not_pay_for_a_failure_of_now():
    ledger = budget_ledger.Ledger()
    assert ledger.count(100.0)
    assert ledger.take(100.0) == 1
    for _ in range(50):
        assert not ledger.count(100.5)

    assert ledger.take(4000.0) == 0


def test_no_success_of_several_threads_is_counted_twice_or_lost():
    ledger = budget_ledger.Ledger()
    ledger.seen(full=True, now=0)
    taken = []

    def work():
        for number in range(2000):
            ledger.count(0.5)
            if number % 7 == 0:
                taken.append(ledger.take(0.5))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(taken) + ledger.take(0.5) == 8000


def test_with_the_store_out_of_reach_everything_runs_and_one_warning_says_so(out_of_reach, caplog):
    stripe = gate(BUDGET)

    with caplog.at_level(logging.WARNING, "django_taskkit"):
        for _ in range(20):
            assert is_let_in(stripe, retry())
            assert stripe.leave(retry(), Outcome.RETRIED) is None
            assert stripe.leave(first(), Outcome.SUCCEEDED) is None

    (record,) = caplog.records
    assert "the retry budget 'stripe' lets every task through" in record.getMessage()


@pytest.mark.parametrize(
    "options",
    [
        {"tokens": 1},
        {"tokens": True},
        {"tokens": float("nan")},
        {"ratio": 0},
        {"ratio": "much"},
        {"wait": 0},
        {"wait": -1},
        {"probe_every": None},
        {"wait": 10, "wait_max": 5},
    ],
)
def test_options_that_make_no_sense_are_refused_with_their_value(options):
    with pytest.raises(ConfigurationError) as caught:
        RetryBudget("stripe", **options)

    option, value = next(iter(options.items()))
    assert f"{option}={float(value) if option == 'wait' and value == 10 else value!r}" in str(caught.value)


def test_budgets_compare_print_and_hash_by_what_they_say():
    assert RetryBudget("a", wait=timedelta(minutes=1)) == RetryBudget("a", wait=60)
    assert len({RetryBudget("a"), RetryBudget("a"), RetryBudget("b")}) == 2
    assert "tokens=10, ratio=0.1" in repr(RetryBudget("a"))


def test_what_an_app_uses_is_named_with_how_it_stands(station):
    station.app.task(base=BaseTaskWithRetry, name="t.a", retry_budget=BUDGET, breaker="stripe")(nothing)
    station.app.task(base=BaseTaskWithRetry, name="t.b", retry_budget="adyen")(nothing)
    spend(BUDGET)

    assert in_use(station.app) == {
        "adyen": Standing(budget=10, tokens=10),
        "stripe": Standing(budget=0, tokens=10, breaker="closed"),
    }


def test_a_task_over_budget_waits_in_the_outbox_and_uses_up_no_retry(station, relay_is_alive):
    calls = []

    def fail():
        calls.append(1)
        raise ConnectionError("down")

    fail = station.app.task(base=BaseTaskWithRetry, name="t.fail", retry_budget=BUDGET, max_retries=5)(fail)
    for _ in range(8):
        fail.delay()

    station.run_all(200)

    # Four retries were sent before the budget was spent; one of them comes through as a probe.
    assert len(calls) == 8 + 1
    assert OutboxMessage.objects.count() == 8
    # Those count that failed while the budget was not known to be spent.
    assert sorted(row.headers["retries"] for row in OutboxMessage.objects.all()) == [0] * 4 + [1] * 4
    assert {(row.reason, row.last_error) for row in OutboxMessage.objects.all()} == {
        ("put_off", "the retry budget 'stripe' is spent")
    }
    assert not DeadLetter.objects.exists()
