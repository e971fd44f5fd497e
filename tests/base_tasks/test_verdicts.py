"""What a task may raise to say itself what becomes of its message."""

import pickle
from datetime import timedelta

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent, Retryable, Snooze
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db


def task(station, *raised, **options):
    """A task that raises these, one each run, and then ends well; its runs are in ``task.runs``."""
    left = list(raised)
    runs = []

    @station.app.task(base=BaseTaskWithRetry, name="t.job", bind=True, retry_jitter=False, **options)
    def job(self):
        runs.append(self.request.retries)
        if left:
            raise left.pop(0)
        return "done"

    job.runs = runs
    return job


class TestPermanent:
    def test_it_is_dead_at_once_and_says_why(self, station, retries):
        task(station, Permanent("the card was stolen")).delay()
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.exception_message) == ("permanent", "the card was stolen")
        assert letter.attempts == 1
        assert retries == []

    def test_the_error_that_led_to_it_is_in_the_traceback(self, station):
        @station.app.task(base=BaseTaskWithRetry)
        def pay():
            try:
                {}["no such card"]
            except LookupError as exc:
                raise Permanent("never") from exc

        pay.delay()
        station.run_all()

        assert "no such card" in DeadLetter.objects.get().traceback

    def test_a_plain_task_may_raise_it_too(self, station):
        @station.app.task
        def plain():
            raise Permanent("never")

        plain.delay()
        station.run_all()

        assert DeadLetter.objects.get().reason == "permanent"

    def test_it_may_come_after_retries(self, station, retries):
        task(station, OSError(), Permanent("no")).delay()
        station.run_all()

        assert len(retries) == 1
        assert DeadLetter.objects.get().reason == "permanent"


class TestSnooze:
    def test_the_task_runs_again_and_no_retry_is_used_up(self, station, retries):
        job = task(station, Snooze(60), Snooze(timedelta(minutes=2)), max_retries=0)

        result = job.delay()
        station.run_all()

        assert job.runs == [0, 0, 0]
        assert [(event.delay, event.counted) for event in retries] == [(60, False), (120, False)]
        assert result.get(timeout=1) == "done"
        assert not DeadLetter.objects.exists()

    def test_retries_that_were_used_up_before_stay_used_up(self, station, retries):
        job = task(station, OSError(), Snooze(5), OSError(), max_retries=5)

        job.delay()
        station.run_all()

        assert job.runs == [0, 1, 1, 2]
        assert [event.delay for event in retries] == [1, 5, 2]

    def test_it_does_not_start_the_clock_of_retry_for(self, station):
        job = task(station, Snooze(50_000), OSError(), retry_for=10)

        job.delay()
        station.run_all()

        assert not DeadLetter.objects.exists()
        assert job.runs == [0, 0, 1]

    def test_it_may_come_after_the_tasks_own_retry_has_given_up(self, station, retries):
        runs = []

        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=0)
        def job(self):
            runs.append(1)
            if len(runs) == 1:
                try:
                    self.retry()
                except self.MaxRetriesExceededError:
                    raise Snooze(3600) from None

        job.delay()
        station.run_all()

        assert [(event.delay, event.counted) for event in retries] == [(3600, False)]
        assert not DeadLetter.objects.exists()

    def test_the_state_meanwhile_is_retry_with_its_message(self, station):
        result = task(station, Snooze(60, "the import is not there yet")).delay()
        station.run_next()

        assert result.state == "RETRY"
        assert "the import is not there yet" in str(result.result)

    def test_headers_of_the_caller_go_along(self, station):
        task(station, Snooze(60)).apply_async(headers={"tenant": "t1"})
        station.run_next()

        assert station.take().headers["tenant"] == "t1"


class TestRetryable:
    def test_it_is_retried_though_autoretry_for_does_not_name_it(self, station, retries):
        task(station, Retryable("still booting"), autoretry_for=()).delay()
        station.run_all()

        assert [(event.delay, event.counted) for event in retries] == [(1, True)]

    def test_it_may_say_when(self, station, retries):
        task(station, Retryable(delay=30), Retryable(delay=timedelta(minutes=1)), Retryable(delay=0.2)).delay()
        station.run_all()

        assert [event.delay for event in retries] == [30, 60, 1]

    def test_it_uses_up_retries(self, station):
        task(station, *[Retryable("still booting", delay=3)] * 3, max_retries=2).delay()
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.attempts) == ("retries_exhausted", 3)
        assert letter.exception_message == "still booting"

    def test_without_words_of_its_own_the_error_behind_it_is_what_is_shown(self, station):
        @station.app.task(base=BaseTaskWithRetry, max_retries=0)
        def pay():
            try:
                {}["bank"]
            except KeyError as exc:
                raise Retryable(delay=5) from exc

        pay.delay()
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.exception_class, letter.exception_message) == ("KeyError", "'bank'")
        assert "Retryable" in letter.traceback


@pytest.mark.parametrize("verdict", [Retryable("a", delay=3), Permanent("b"), Snooze(7), Snooze(7, "c")])
def test_a_verdict_survives_the_way_from_a_pool_process(verdict):
    copy = pickle.loads(pickle.dumps(verdict))

    assert type(copy) is type(verdict)
    assert (str(copy), vars(copy)) == (str(verdict), vars(verdict))


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "60", True, timedelta(seconds=-1)])
@pytest.mark.parametrize("verdict", [Snooze, lambda delay: Retryable(delay=delay)])
def test_a_delay_that_makes_no_sense_is_refused_where_it_is_said(verdict, delay):
    with pytest.raises(ValueError, match="give seconds, 0 or more, or a timedelta"):
        verdict(delay)


@pytest.mark.parametrize("verdict", [Snooze, lambda delay: Retryable(delay=delay)])
def test_so_is_one_that_no_calendar_has(verdict):
    with pytest.raises(ValueError, match="give at most"):
        verdict(1e15)


@pytest.mark.parametrize("verdict", [Snooze(5), Permanent("no"), Retryable("later")])
def test_called_directly_a_task_raises_its_verdict(station, verdict):
    with pytest.raises(type(verdict)):
        task(station, verdict)()
