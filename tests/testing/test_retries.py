"""Retries by a clock that the test moves."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from django.utils import timezone as django_timezone

from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent, Retryable, Snooze
from django_taskkit.base_tasks.gates.breaker import CircuitBreaker, State
from django_taskkit.base_tasks.gates.budget import RetryBudget
from django_taskkit.testing import EndlessError, inline_worker

pytestmark = pytest.mark.django_db


@pytest.fixture
def fetch(app):
    @app.task(name="shop.fetch", base=BaseTaskWithRetry, retry_jitter=False)
    def fetch():
        return "fetched"

    return fetch


def test_a_retry_waits_until_the_test_advances_to_it(tasks, fetch):
    tasks.fail_times(fetch, 2)
    result = fetch.delay()
    started, really = tasks.now, time.monotonic()

    assert [ran.state for ran in tasks.run()] == ["retried"]
    assert tasks.run() == []
    assert [ran.state for ran in tasks.advance_retries()] == ["retried"]
    assert tasks.now == started + timedelta(seconds=1)
    assert [(ran.attempt, ran.state) for ran in tasks.advance_retries()] == [(3, "succeeded")]
    assert tasks.now == started + timedelta(seconds=3)
    assert result.get() == "fetched"
    tasks.assert_retried(fetch, times=2, delay_between=(1, 2), exception=ConnectionError)
    tasks.assert_no_dead_letters()
    tasks.assert_nothing_left()
    assert time.monotonic() - really < 30


def test_all_retries_are_run_until_the_task_dies(tasks, fetch):
    tasks.fail_times(fetch, 99, TimeoutError("too slow"))
    fetch.delay()

    ran = tasks.advance_retries(times=None)

    assert [run.attempt for run in ran] == [1, 2, 3, 4, 5, 6]
    assert [retry.delay for retry in tasks.retries] == [1, 2, 4, 8, 16]
    assert tasks.assert_dead(fetch, reason="retries_exhausted", exception="TimeoutError").attempts == 6


def test_retries_of_celerys_own_tasks_are_run_as_well(tasks, app):
    @app.task(name="shop.own", bind=True, autoretry_for=(OSError,), retry_backoff=True, retry_jitter=False)
    def own(self):
        return "done"

    @app.task(name="shop.asking", bind=True)
    def asking(self):
        if self.request.retries < 1:
            raise self.retry(countdown=30, exc=KeyError("x"))

    tasks.fail_times(own, 2, OSError("down"))
    own.delay()
    asking.delay()
    tasks.advance_retries(times=None)

    tasks.assert_retried(own, times=2, delay_between=(1, 2), exception=OSError)
    tasks.assert_retried(asking, times=1, delay_between=(30, 30), exception=KeyError)
    tasks.assert_ran(own, state="succeeded")
    tasks.assert_ran(asking, state="succeeded")


def test_advancing_to_a_retry_that_does_not_wait_is_an_error(tasks, fetch):
    fetch.delay()

    with pytest.raises(AssertionError, match=r"(?s)no retry waits.*shop.fetch.* run 1 succeeded"):
        tasks.advance_retries()


def test_a_message_with_a_countdown_is_no_retry(tasks, fetch):
    fetch.apply_async(countdown=5)

    with pytest.raises(AssertionError, match="no retry waits"):
        tasks.advance_retries()
    assert tasks.advance_retries(times=None) == []
    assert len(tasks.waiting) == 1


def test_a_task_without_a_limit_of_retries_is_stopped(app, fetch):
    fetch.max_retries = None
    with inline_worker(limit=20) as tasks:
        tasks.fail_times(fetch, 100)
        fetch.delay()
        with pytest.raises(EndlessError, match=r"20 messages .* task 'shop.fetch'"):
            tasks.advance_retries(times=None)


def test_whoever_reads_the_time_sees_the_clock(tasks, app):
    seen = []

    @app.task(name="shop.look")
    def look():
        seen.append((time.time(), datetime.now(timezone.utc), django_timezone.now()))

    start = tasks.now
    look.apply_async(countdown=3600)
    tasks.advance(7200)

    moment = start + timedelta(hours=1)
    assert seen == [(moment.timestamp(), moment, moment)]
    assert tasks.now == start + timedelta(hours=2)


def test_a_deadline_ends_retries_by_the_fake_clock(tasks, fetch):
    fetch.retry_for = timedelta(seconds=10)
    tasks.fail_times(fetch, 99)
    fetch.delay()
    tasks.advance_retries(times=None)

    tasks.assert_retried(fetch, times=3)  # after 1, 3 and 7 seconds; the next would come after 15
    tasks.assert_dead(fetch, reason="deadline")


def test_a_retry_past_the_messages_expiry_is_not_sent(tasks, fetch):
    tasks.fail_times(fetch, 99)
    fetch.apply_async(expires=5)
    tasks.advance_retries(times=None)

    tasks.assert_retried(fetch, times=2)
    tasks.assert_dead(fetch, reason="deadline")


def test_what_is_put_off_counts_as_no_retry_and_is_advanced_to(tasks, app):
    answers = [Snooze(300), Retryable(delay=7), Permanent("the card was stolen")]

    @app.task(name="shop.charge", base=BaseTaskWithRetry, retry_jitter=False)
    def charge():
        raise answers.pop(0)

    charge.delay()
    tasks.advance_retries(times=2)

    assert [(retry.delay, retry.counted) for retry in tasks.retries] == [(300, False), (7, True)]
    tasks.assert_retried(charge, times=1)
    tasks.assert_dead(charge, reason="permanent")


def test_eager_runs_what_is_sent_at_once_and_its_retries_as_well(eager, fetch):
    eager.fail_times(fetch, 3)
    start = eager.now

    result = fetch.delay()

    assert result.get() == "fetched"
    assert eager.now == start + timedelta(seconds=1 + 2 + 4)
    eager.assert_retried(fetch, times=3)
    eager.assert_nothing_left()


def test_eager_lets_a_task_die(eager, fetch):
    eager.fail_times(fetch, 99, TimeoutError("too slow"))

    result = fetch.delay()

    eager.assert_dead(fetch, reason="retries_exhausted")
    with pytest.raises(TimeoutError):
        result.get()


def test_eager_runs_countdowns_chains_and_what_tasks_send(eager, app):
    order = []

    @app.task(name="shop.first")
    def first():
        second.apply_async((2,), countdown=60)
        order.append(1)
        return 3

    @app.task(name="shop.second")
    def second(number):
        order.append(number)

    (first.si() | second.s()).delay()

    assert order == [1, 3, 2]
    eager.assert_nothing_left()


def test_eager_stops_a_task_that_is_retried_for_ever(app, fetch):
    fetch.max_retries = None
    with inline_worker(eager=True, limit=30) as tasks:
        tasks.fail_times(fetch, 100)
        with pytest.raises(EndlessError, match=r"30 messages .* 30 of them of task 'shop.fetch'"):
            fetch.delay()


def test_what_waits_for_a_budget_waits_in_the_outbox_by_the_clock(tasks, app):
    @app.task(name="shop.call", base=BaseTaskWithRetry, retry_jitter=False, retry_budget=RetryBudget("bank", tokens=2))
    def call():
        return "called"

    tasks.fail_times(call, 3)
    for _ in range(3):
        call.delay()
    tasks.run()

    assert {left.where for left in tasks.waiting} == {"outbox"}
    tasks.advance_retries(times=None)
    tasks.assert_ran(call, times=3, state="succeeded")
    tasks.assert_nothing_left()


def test_a_breaker_opens_and_closes_by_the_clock(tasks, app):
    breaker = CircuitBreaker("bank", minimum_calls=2, open_for=60, probes=1)

    @app.task(name="shop.call", base=BaseTaskWithRetry, retry_jitter=False, breaker=breaker)
    def call():
        return "called"

    tasks.fail_times(call, 2)
    call.delay()
    call.delay()
    tasks.run()
    assert breaker.state() is State.OPEN

    tasks.advance_retries(times=None)

    assert breaker.state() is State.CLOSED
    tasks.assert_ran(call, times=2, state="succeeded")


def test_a_retry_goes_to_its_own_queue(tasks, fetch):
    fetch.retry_queue = "later"
    tasks.fail_times(fetch, 1)
    fetch.delay()
    tasks.run()

    assert [left.queue for left in tasks.waiting] == ["later"]
    tasks.advance_retries()
    tasks.assert_ran(fetch, state="succeeded")
