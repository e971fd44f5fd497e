"""Things that go wrong on purpose."""

import os
import time

import pytest
from celery import Task
from celery.exceptions import SoftTimeLimitExceeded
from django.contrib.auth.models import User
from django.db import transaction
from django.test import override_settings
from kombu.exceptions import OperationalError

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.dlq import spool_files
from django_taskkit.models import DeadLetter, OutboxMessage

pytestmark = pytest.mark.django_db


@pytest.fixture
def bodies():
    """How often a body was entered, as a list."""
    return []


@pytest.fixture
def plain(app, bodies):
    @app.task(name="shop.plain")
    def plain():
        bodies.append("plain")

    return plain


@pytest.fixture
def careful(app, bodies):
    @app.task(name="shop.careful", base=DeadLetterTask)
    def careful():
        bodies.append("careful")

    return careful


@pytest.fixture
def retrying(app, bodies):
    @app.task(name="shop.retrying", base=BaseTaskWithRetry, retry_jitter=False)
    def retrying():
        bodies.append("retrying")

    return retrying


def test_a_run_that_is_to_fail_does_not_enter_the_body(tasks, plain, bodies):
    tasks.fail_times(plain, 1, KeyError)
    plain.delay()
    plain.delay()

    assert [ran.state for ran in tasks.run()] == ["failed", "succeeded"]
    assert bodies == ["plain"]
    tasks.assert_dead(plain, exception="KeyError")


def test_a_task_is_named_by_a_task_or_its_name_or_a_signature(tasks, plain):
    for named in ("shop.plain", plain, plain.s()):
        tasks.fail_times(named, 1)
        plain.delay()
        tasks.run()

    assert len(tasks.dead_letters) == 3


def test_a_name_that_no_task_has_is_refused_with_a_better_one(tasks, plain):
    with pytest.raises(ValueError, match=r"'shop.plan' is no task .* did you mean 'shop.plain'\?"):
        tasks.fail_times("shop.plan", 1)
    with pytest.raises(ValueError, match="times=0 makes no sense"):
        tasks.fail_times(plain, 0)


def test_a_soft_time_limit_is_an_error_like_others(tasks, plain):
    tasks.fail_times(plain, 1, SoftTimeLimitExceeded())
    plain.delay()
    tasks.run()

    tasks.assert_dead(plain, reason="time_limit")


def test_a_message_that_was_acknowledged_dies_with_its_worker(tasks, plain, bodies):
    tasks.kill_worker(plain)
    plain.delay()

    assert [ran.state for ran in tasks.run()] == ["killed"]
    assert bodies == []
    tasks.assert_dead(plain, reason="worker_lost")


@pytest.mark.parametrize("name", ["careful", "retrying"])
def test_a_message_that_was_not_acknowledged_is_delivered_again(tasks, request, bodies, name):
    task = request.getfixturevalue(name)
    tasks.kill_worker(task)
    task.delay()

    assert [ran.state for ran in tasks.run()] == ["killed", "succeeded"]
    assert bodies == [name]
    tasks.assert_no_dead_letters()


def test_a_worker_that_is_killed_after_the_run_has_it_run_twice(tasks, careful, bodies):
    careful.ignore_result = True  # Celery 5.7 looks for a stored success first
    tasks.kill_worker(careful, after_run=True)
    careful.delay()
    tasks.run()

    assert bodies == ["careful", "careful"]


def test_a_message_that_kills_its_workers_reaches_the_delivery_limit(tasks, careful, bodies):
    tasks.kill_worker(careful, times=99)
    careful.delay()
    tasks.run()

    assert [ran.state for ran in tasks.ran] == ["killed"] * 3
    assert bodies == []
    tasks.assert_dead(careful, reason="delivery_limit")
    tasks.assert_nothing_left()


def test_a_hard_time_limit_is_a_death(tasks, careful, plain):
    for task in (careful, plain):
        tasks.time_out(task)
        task.delay()

    assert [ran.state for ran in tasks.run()] == ["timed out", "timed out"]
    for task in (careful, plain):
        tasks.assert_dead(task, reason="time_limit")


def test_a_broker_that_is_down_leaves_messages_in_the_outbox_until_it_is_back(tasks, plain, bodies):
    started = time.monotonic()
    with tasks.broker_down():
        plain.delay()
        assert tasks.run() == []
        assert [left.where for left in tasks.waiting] == ["outbox"]
        assert OutboxMessage.objects.get().reason == "publish_failed"
        tasks.assert_sent(plain)

    tasks.run()

    assert bodies == ["plain"]
    assert not OutboxMessage.objects.exists()
    tasks.assert_nothing_left()
    assert time.monotonic() - started < 5  # nothing has waited for the broker


def test_without_an_outbox_the_caller_gets_the_brokers_error(tasks, plain):
    with override_settings(TASKKIT={"OUTBOX": "never"}), tasks.broker_down(), pytest.raises(OperationalError):
        plain.delay()

    tasks.assert_not_sent(plain)
    plain.delay()
    tasks.assert_sent(plain, times=1)


def test_a_retry_that_can_not_be_published_waits_in_the_outbox_for_its_time(tasks, retrying, bodies):
    tasks.fail_times(retrying, 1)
    retrying.delay()
    with tasks.broker_down():
        tasks.run()
    assert tasks.run() == []

    tasks.advance_retries()

    assert bodies == ["retrying"]


def test_a_retry_that_nobody_takes_goes_back_to_the_broker_without_a_wait(tasks, retrying, bodies):
    tasks.fail_times(retrying, 1)
    retrying.delay()
    started = time.monotonic()
    with override_settings(TASKKIT={"OUTBOX": "never"}), tasks.broker_down():
        assert tasks.run_next().state == "rejected"
    tasks.run()

    assert bodies == ["retrying"]
    assert time.monotonic() - started < 5


def test_the_time_that_a_message_waits_in_the_outbox_is_that_of_the_clock(tasks, plain, bodies):
    with override_settings(TASKKIT={"LONG_DELAY": 60}):
        plain.apply_async(countdown=3600)
        assert [left.where for left in tasks.waiting] == ["outbox"]
        assert tasks.advance(3599) == []
        assert [ran.state for ran in tasks.advance(1)] == ["succeeded"]


def test_a_transactional_outbox_is_sent_after_the_commit(tasks, plain, bodies):
    with override_settings(TASKKIT={"OUTBOX": "always"}):
        with transaction.atomic():
            plain.delay()
            assert tasks.run() == []
        tasks.run()
        assert bodies == ["plain"]

        with transaction.atomic():
            plain.delay()
            transaction.set_rollback(True)
        assert tasks.run() == []


def test_a_death_while_the_database_is_down_is_spooled_and_brought_in(tasks, plain):
    tasks.fail_times(plain, 1)
    plain.delay()
    with tasks.database_down():
        tasks.run()
    assert tasks.dead_letters == []
    with pytest.raises(AssertionError, match=r"messages died:\n  1 are spooled, .* call relay\(\)"):
        tasks.assert_no_dead_letters()
    with pytest.raises(AssertionError, match="once, but it was never. Dead letters are:\n  1 are spooled"):
        tasks.assert_dead(plain)

    assert tasks.relay().spooled == 1

    tasks.assert_dead(plain, exception="ConnectionError")


def test_a_death_while_broker_and_database_are_down_reaches_a_file_of_the_block(tasks, plain):
    folder = spool_files.path()
    tasks.fail_times(plain, 1)
    plain.delay()
    with tasks.database_down(), tasks.broker_down():
        tasks.run()
    assert os.path.isdir(folder)

    tasks.relay()

    tasks.assert_dead(plain)


def test_a_task_that_needs_the_database_fails_while_it_is_down(tasks, app):
    @app.task(name="shop.count", base=BaseTaskWithRetry)
    def count():
        return User.objects.count()

    count.delay()
    with tasks.database_down():
        tasks.run()
    tasks.advance_retries()

    tasks.assert_retried(count, times=1)
    tasks.assert_ran(count, state="succeeded")
    assert not DeadLetter.objects.exists()


def test_eager_sends_the_outbox_when_the_broker_is_back(eager, plain, bodies):
    with eager.broker_down():
        plain.delay()
        assert bodies == []

    assert bodies == ["plain"]


def test_every_kind_of_task_can_be_made_to_fail(tasks, app, bodies):
    class Described(Task):
        name = "shop.described"

        def run(self, value):
            bodies.append(value)

    class Counting(BaseTaskWithRetry):
        abstract = True

        def __call__(self, *args, **kwargs):
            bodies.append("called")
            return super().__call__(*args, **kwargs)

    described = app.register_task(Described())

    @app.task(name="shop.counting", base=Counting, bind=True)
    def counting(self, value):
        bodies.append((self.name, value))

    @app.task(name="shop.retried", autoretry_for=(KeyError,), retry_backoff=1, retry_jitter=False, bind=True)
    def retried(self, value):
        bodies.append((self.name, value))

    for task in (described, counting, retried):
        tasks.fail_times(task, 1, KeyError("x"))
        task.delay(1)
    tasks.advance_retries(times=None)
    described.delay(2)
    tasks.run()

    assert bodies == ["called", "called", ("shop.counting", 1), ("shop.retried", 1), 2]
    tasks.assert_dead(described)
    tasks.assert_retried(counting, times=1)
    tasks.assert_retried(retried, times=1)


def test_only_the_task_that_is_named_fails(tasks, plain, careful):
    tasks.fail_times(plain, 1)
    careful.delay()
    plain.delay()
    tasks.run()

    tasks.assert_ran(careful, state="succeeded")
    tasks.assert_ran(plain, state="failed")


def test_an_error_that_is_raised_more_than_once_is_raised_as_new(tasks, retrying):
    error = TimeoutError("slow")
    tasks.fail_times(retrying, 6, error)
    retrying.delay()
    tasks.advance_retries(times=None)

    letter = tasks.assert_dead(retrying)
    assert letter.traceback.count("in run") <= 2
