"""Long outages of what tasks need, by a clock that is moved, with the test kit."""

from datetime import timedelta

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry, CircuitBreaker, RetryBudget
from django_taskkit.models import DeadLetter
from django_taskkit.testing import inline_worker

pytest.importorskip("time_machine")
pytestmark = pytest.mark.django_db

GUARDS = {
    "budget": {"retry_budget": RetryBudget("bank")},
    "breaker": {"breaker": CircuitBreaker("bank", minimum_calls=5, probes=1)},
}


class Bank:
    is_down = True
    calls = 0


@pytest.fixture
def bank():
    return Bank()


@pytest.fixture
def tasks(station):
    with inline_worker(station.app, limit=100_000) as tasks:
        yield tasks


@pytest.fixture
def charge(station, tasks, bank):
    """Send ten tasks that need the bank."""

    def send(**options):
        @station.app.task(base=BaseTaskWithRetry, name="t.charge", autoretry_for=(OSError,), **options)
        def charge(number):
            bank.calls += 1
            if bank.is_down:
                raise ConnectionError("the bank is down")

        for number in range(10):
            charge.delay(number)

    return send


@pytest.mark.parametrize("guard", GUARDS)
def test_no_task_dies_in_an_outage_of_hours_and_all_succeed_after_it(tasks, bank, charge, guard):
    charge(**GUARDS[guard])
    tasks.advance(timedelta(hours=3))
    assert not DeadLetter.objects.exists()

    bank.is_down = False
    tasks.advance(timedelta(minutes=40))

    tasks.assert_nothing_left()
    assert not DeadLetter.objects.exists()


def test_while_the_budget_is_spent_only_probes_call_also_of_tasks_that_failed_only_once(tasks, bank, charge):
    charge(retry_budget=RetryBudget("bank", probe_every=1800))

    tasks.advance(timedelta(hours=3))

    assert 10 < bank.calls <= 10 + 5 + 7


def test_those_that_have_a_deadline_die_of_it(tasks, charge):
    charge(retry_budget=RetryBudget("bank"), retry_for=timedelta(hours=1))

    tasks.advance(timedelta(hours=4))

    assert [letter.reason for letter in DeadLetter.objects.all()] == ["deadline"] * 10


def test_what_fails_for_more_than_a_day_dies_in_the_end_so_that_somebody_knows(tasks, charge):
    charge(retry_budget=RetryBudget("bank", probe_every=1800, wait=3600, wait_max=7200))

    tasks.advance(timedelta(hours=23))
    assert not DeadLetter.objects.exists()
    tasks.advance(timedelta(days=9))

    assert {letter.reason for letter in DeadLetter.objects.all()} == {"retries_exhausted"}
    tasks.assert_nothing_left()
