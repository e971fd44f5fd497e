"""What is shown of a task that fails, and what is not sent again meanwhile."""

from __future__ import annotations

import pytest
from celery.exceptions import Ignore, Reject
from django.core.cache import caches
from kombu.exceptions import OperationalError

from django_taskkit.dlq import discard, requeue
from django_taskkit.models import DeadLetter
from django_taskkit.results import Progress, ResultCache, Status

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_failure_is_shown_with_its_dead_letter(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=60)
    sent = cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    clock.shift(10)

    state = cache.get_or_dispatch(7)

    assert (state.status, state.task_id, state.dead_letter) == (Status.FAILED, sent.task_id, "dead")
    assert (state.error.kind, state.error.message) == ("ValueError", "no such user")
    assert (state.retry_after, state.dispatched, state.attempt) == (50, False, 1)


def test_after_the_error_timeout_the_task_is_sent_again(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=60)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    clock.shift(61)

    assert cache.get_or_dispatch(7).dispatched


def test_without_an_error_timeout_it_fails_until_somebody_acts(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=None)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    clock.shift(86_400)

    assert cache.get_or_dispatch(7).status is Status.FAILED
    cache.invalidate(7)
    assert cache.get_or_dispatch(7).dispatched


def test_a_requeue_that_succeeds_turns_a_failure_into_a_hit(station, fragile):
    cache = ResultCache(fragile)
    sent = cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()

    requeue(DeadLetter.objects.all(), by="ann")

    waiting = cache.get_or_dispatch(7)
    assert (waiting.status, waiting.dispatched) == (Status.PENDING, False)
    station.run_next()
    state = cache.get_or_dispatch(7)
    assert (state.status, state.value, state.task_id) == (Status.HIT, 7, sent.task_id)
    assert DeadLetter.objects.get().status == "recovered"


def test_a_requeue_long_after_the_error_timeout_does_so_too(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=10)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    clock.shift(3600)

    requeue(DeadLetter.objects.all(), by="ann")
    station.run_next()

    assert cache.peek(7).status is Status.HIT


def test_a_discarded_dead_letter_is_shown_as_such(station, fragile):
    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()

    discard(DeadLetter.objects.all(), by="ann")

    assert (cache.peek(7).status, cache.peek(7).dead_letter) == (Status.FAILED, "discarded")


def test_refresh_sends_although_the_task_failed_a_moment_ago(station, fragile):
    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()

    assert cache.refresh(7).dispatched


def test_a_failed_refresh_leaves_the_stale_value_and_is_not_sent_at_once(station, fragile, clock):
    cache = ResultCache(fragile, timeout=60, stale_for=600, error_timeout=30)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(100)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()

    state = cache.get_or_dispatch(7)

    assert (state.status, state.run, state.value) == (Status.STALE, Status.FAILED, 7)
    assert state.error.message == "no such user"
    assert station.waiting() == 0
    clock.shift(31)
    assert cache.get_or_dispatch(7).dispatched


def test_a_retry_is_no_failure_and_says_when_it_comes(station, fragile, clock):
    cache = ResultCache(fragile)
    sent = cache.get_or_dispatch(7)
    fragile.errors.append(OSError("the mail server is busy"))
    station.run_next()
    clock.shift(10)

    state = cache.get_or_dispatch(7)

    assert (state.status, state.task_id, state.attempt, state.dispatched) == (
        Status.RETRYING,
        sent.task_id,
        1,
        False,
    )
    assert 5 <= state.retry_after <= 20
    assert state.progress == Progress(done=1, total=4, message="attempt 1")
    assert state.error is None


def test_a_retry_that_waits_longer_than_the_lock_timeout_is_not_lost(station, fragile, clock):
    fragile.retry_backoff = 600
    cache = ResultCache(fragile, lock_timeout=60)
    cache.get_or_dispatch(7)
    fragile.errors.append(OSError("the mail server is busy"))
    station.run_next()
    clock.shift(200)

    assert cache.get_or_dispatch(7).status is Status.RETRYING


def test_the_retry_makes_the_value(station, fragile):
    cache = ResultCache(fragile)
    sent = cache.get_or_dispatch(7)
    fragile.errors.append(OSError("the mail server is busy"))
    station.run_all()

    state = cache.get_or_dispatch(7)

    assert (state.status, state.task_id) == (Status.HIT, sent.task_id)


@pytest.mark.parametrize("ending", [Ignore(), Reject("not mine", requeue=False)], ids=["Ignore", "Reject"])
def test_a_task_that_ends_itself_without_a_result_has_failed(station, fragile, ending):
    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    fragile.errors.append(ending)
    station.run_next()

    assert cache.get_or_dispatch(7).status is Status.FAILED


def test_a_task_that_is_replaced_is_on_its_way(station, fragile):
    @station.app.task(name="shop.handing_over", bind=True)
    def handing_over(self, user_id):
        raise self.replace(fragile.s(user_id))

    cache = ResultCache(handing_over)
    sent = cache.get_or_dispatch(7)
    station.run_next()

    assert cache.get_or_dispatch(7).status is Status.PENDING
    station.run_next()
    state = cache.get_or_dispatch(7)
    assert (state.status, state.value, state.task_id) == (Status.HIT, 7, sent.task_id)


def test_a_killed_process_is_a_failure(station, fragile):
    cache = ResultCache(fragile)
    fragile.reject_on_worker_lost = False
    cache.get_or_dispatch(7)
    request = station.request(station.take())
    request.execute_using_pool(station.pool)
    station.pool.jobs.pop().accept().lose()

    state = cache.get_or_dispatch(7)

    assert (state.status, state.dead_letter) == (Status.FAILED, "dead")
    assert state.error.kind.endswith("WorkerLostError")


def test_a_message_that_no_worker_knows_has_failed(station, fragile):
    """As the worker's consumer tells it; see tests/worker/test_outside.py for the deaths that end there."""
    from django_taskkit.dlq.models import Reason
    from django_taskkit.worker.outside import record_message

    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    message = station.take()
    record_message(station.app, message, Reason.UNREGISTERED, KeyError("shop.fragile"), "worker@here")

    state = cache.get_or_dispatch(7)

    assert (state.status, state.dead_letter, state.error.kind) == (Status.FAILED, "dead", "KeyError")


def test_a_failure_is_seen_also_where_no_dead_letter_is_made(station, fragile):
    fragile.dead_letter = False
    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()

    state = cache.get_or_dispatch(7)

    assert (state.status, state.dead_letter) == (Status.FAILED, "")
    assert not DeadLetter.objects.exists()


def test_a_value_that_can_not_be_pickled_is_a_failure_that_says_so(station):
    @station.app.task(name="shop.unpicklable")
    def unpicklable():
        return lambda: None

    cache = ResultCache(unpicklable)
    cache.get_or_dispatch()
    station.run_next()

    state = cache.get_or_dispatch()

    assert (state.status, state.dispatched) == (Status.FAILED, False)
    assert "doesn't take the value" in state.error.message
    assert "pickle" in state.error.message


@pytest.fixture
def broker_down(station, monkeypatch):
    from kombu.messaging import Producer

    def publish(self, *args, **kwargs):
        raise OperationalError("connection refused")

    monkeypatch.setattr(Producer, "publish", publish)


def test_what_the_broker_does_not_take_is_refused(station, report, broker_down, settings):
    settings.TASKKIT = {"OUTBOX": "never"}
    cache = ResultCache(report)

    state = cache.get_or_dispatch(7)

    assert (state.status, state.retry_after, state.dispatched) == (Status.REFUSED, 10, False)
    assert state.error.message == "connection refused"
    assert cache.peek(7).status is Status.ABSENT


def test_with_the_outbox_it_waits_there(station, report, broker_down):
    from django_taskkit.models import OutboxMessage

    state = ResultCache(report).get_or_dispatch(7)

    assert state.status is Status.PENDING
    assert OutboxMessage.objects.get().task_id == state.task_id


def test_what_is_refused_may_run_here_and_now(station, report, broker_down, settings):
    settings.TASKKIT = {"OUTBOX": "never"}
    cache = ResultCache(report, when_refused="inline")

    state = cache.get_or_dispatch(7)

    assert (state.status, state.value["user"]) == (Status.HIT, 7)
    assert cache.get_or_dispatch(7).value["made"] == 1


def test_an_error_of_what_runs_here_and_now_is_a_failure(station, fragile, broker_down, settings):
    settings.TASKKIT = {"OUTBOX": "never"}
    fragile.errors.append(ValueError("no such user"))

    state = ResultCache(fragile, when_refused="inline").get_or_dispatch(7)

    assert (state.status, state.error.message) == (Status.FAILED, "no such user")


def test_a_stale_value_is_shown_when_no_new_one_can_be_sent(station, report, clock, settings, monkeypatch):
    cache = ResultCache(report, timeout=60, stale_for=600)
    cache.get_or_dispatch(7)
    station.run_next()
    clock.shift(100)
    settings.TASKKIT = {"OUTBOX": "never"}

    def refuse(*args, **kwargs):
        raise OperationalError("connection refused")

    monkeypatch.setattr("kombu.messaging.Producer.publish", refuse)
    state = cache.get_or_dispatch(7)

    assert (state.status, state.run, state.value["user"]) == (Status.STALE, Status.REFUSED, 7)


@pytest.fixture
def cache_down(settings):
    """A Redis that is not there."""
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    }


def test_while_the_cache_is_away_nothing_is_sent(station, report, cache_down):
    cache = ResultCache(report)

    assert cache.get_or_dispatch(7).status is Status.REFUSED
    assert cache.peek(7).status is Status.REFUSED
    assert cache.refresh(7).status is Status.REFUSED
    assert station.waiting() == 0


def test_while_the_cache_is_away_the_task_may_run_here_and_now(station, report, cache_down):
    state = ResultCache(report, when_refused="inline").get_or_dispatch(7)

    assert (state.status, state.value["user"]) == (Status.HIT, 7)


def test_a_task_goes_on_while_the_cache_is_away(station, report, settings):
    before = settings.CACHES
    cache = ResultCache(report)
    cache.get_or_dispatch(7)
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    }

    step = station.run_next()

    assert not step.failed
    assert report.runs == [(7, "2026-11")]
    settings.CACHES = before


def test_the_message_of_an_edited_dead_letter_has_nothing_to_do_with_the_value(station, fragile):
    from django_taskkit.dlq.rewriting import rewritten
    from django_taskkit.envelope import RESULT_HEADER, Envelope

    cache = ResultCache(fragile)
    cache.get_or_dispatch(7)
    envelope = Envelope.from_message(station.take(), station.app)

    assert RESULT_HEADER in rewritten(envelope, [7], {}, station.app).headers
    assert RESULT_HEADER not in rewritten(envelope, [8], {}, station.app).headers
    assert RESULT_HEADER not in rewritten(envelope, [], {"user_id": 7}, station.app).headers


def test_a_cache_that_keeps_nothing_is_refused_openly(report, settings):
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    from django_taskkit.exceptions import ConfigurationError

    with pytest.raises(ConfigurationError, match="DummyCache, which keeps nothing"):
        ResultCache(report).get_or_dispatch(7)


def test_a_record_that_is_none_of_ours_is_replaced(station, report):
    cache = ResultCache(report)
    caches["default"].set(f"{cache.key(7)}:run", b"not a record", 60)

    assert cache.get_or_dispatch(7).dispatched


def test_a_requeue_is_on_its_way_also_after_the_error_timeout(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=60)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    clock.shift(50)
    requeue(DeadLetter.objects.all(), by="ann")
    clock.shift(15)

    assert not cache.get_or_dispatch(7).dispatched


def test_a_requeue_that_is_lost_is_noticed(station, fragile, clock):
    cache = ResultCache(fragile, error_timeout=None, lock_timeout=30)
    cache.get_or_dispatch(7)
    fragile.errors.append(ValueError("no such user"))
    station.run_next()
    requeue(DeadLetter.objects.all(), by="ann")
    station.take()  # and lose it
    clock.shift(3600)

    assert cache.peek(7).status is Status.LOST
