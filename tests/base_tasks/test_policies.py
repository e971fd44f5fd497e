"""Policies for kinds of exceptions, and what else decides about a retry, on Celery's real message path."""

from datetime import datetime, timedelta, timezone

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry, Permanent, Retryable, RetryPolicy, Snooze
from django_taskkit.base_tasks.rules import rules_of
from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter
from django_taskkit.signals import task_retry_scheduled

pytestmark = pytest.mark.django_db


class RateLimitedError(ConnectionError):
    pass


class Asking(Exception):
    """An error that says when to come back."""

    def __init__(self, retry_after):
        super().__init__(retry_after)
        self.retry_after = retry_after


STEADY = RetryPolicy(backoff=30, factor=1, jitter=False, max_retries=3)


def delays(retries):
    return [event.delay for event in retries]


def task(station, *raised, base=BaseTaskWithRetry, **options):
    left = list(raised)

    @station.app.task(base=base, name="t.job", **{"retry_jitter": False, **options})
    def job():
        if left:
            raise left.pop(0)

    return job


def run(station, job, **options):
    result = job.apply_async(**options)
    station.run_all()
    return result


class TestPoliciesForKindsOfExceptions:
    def test_the_most_specific_class_wins(self, station, retries):
        policies = {Exception: RetryPolicy(backoff=5, jitter=False), ConnectionError: STEADY}

        run(station, task(station, ConnectionResetError(), KeyError(), retry_policies=policies))

        assert delays(retries) == [30, 5]

    def test_what_is_named_is_retried_though_autoretry_for_lacks_it(self, station, retries):
        run(station, task(station, KeyError(), autoretry_for=(), retry_policies={LookupError: STEADY}))

        assert delays(retries) == [30]

    def test_what_is_not_named_has_the_policy_of_the_options(self, station, retries):
        run(station, task(station, ValueError(), retry_backoff=7, retry_policies={LookupError: STEADY}))

        assert delays(retries) == [7]

    def test_a_subclass_inherits_and_overrules(self, station, retries):
        class Calling(BaseTaskWithRetry):
            abstract = True
            retry_policies = {ConnectionError: STEADY, KeyError: STEADY}

        class Paying(Calling):
            abstract = True
            retry_policies = {KeyError: RetryPolicy(backoff=9, jitter=False)}

        run(station, task(station, ConnectionError(), KeyError(), RateLimitedError(), base=Paying,
                          retry_policies={RateLimitedError: RetryPolicy(backoff=4, jitter=False)}))  # fmt: skip

        assert delays(retries) == [30, 9, 4]

    def test_each_policy_counts_its_own_retries(self, station, retries):
        few = RetryPolicy(backoff=2, jitter=False, max_retries=1)

        run(station, task(station, KeyError(), OSError(), OSError(), KeyError(), retry_policies={LookupError: few}))

        assert delays(retries) == [2, 1, 2]
        letter = DeadLetter.objects.get()
        assert (letter.exception_class, letter.reason, letter.attempts) == ("KeyError", "retries_exhausted", 4)

    def test_permanent_in_the_place_of_a_policy_is_dead_at_once(self, station, retries):
        run(station, task(station, RateLimitedError(), retry_policies={RateLimitedError: Permanent}))

        assert retries == []
        assert DeadLetter.objects.get().reason == "permanent"

    def test_an_exclusion_that_says_more_than_a_policy_counts(self, station, retries):
        options = {"retry_policies": {OSError: STEADY}, "dont_autoretry_for": (RateLimitedError,)}
        run(station, task(station, ConnectionError(), RateLimitedError(), **options))

        assert delays(retries) == [30]
        assert DeadLetter.objects.get().reason == "exception"

    def test_a_policy_that_says_more_than_an_exclusion_counts(self, station, retries):
        options = {"retry_policies": {RateLimitedError: STEADY}, "dont_autoretry_for": (OSError,)}
        run(station, task(station, RateLimitedError(), ConnectionError(), **options))

        assert delays(retries) == [30]

    def test_they_can_be_set_by_task_annotations(self, station, retries):
        station.app.conf.task_annotations = {"t.job": {"retry_policies": {KeyError: STEADY}}}

        run(station, task(station, KeyError()))

        assert delays(retries) == [30]

    def test_a_header_that_somebody_else_has_written_does_no_harm(self, station, retries):
        job = task(station, KeyError(), KeyError(), retry_policies={KeyError: STEADY})

        run(station, job, headers={"taskkit_retries_by": {"builtins.KeyError": "x"}, "taskkit_waits": [], "x": 1})

        assert delays(retries) == [30, 30]

    def test_nor_does_one_that_would_grant_more_retries(self, station, retries):
        few = RetryPolicy(backoff=2, jitter=False, max_retries=1)
        job = task(station, *[KeyError() for _ in range(9)], retry_policies={KeyError: few})
        run(station, job, headers={"taskkit_retries_by": {"builtins.KeyError": -5}})

        assert delays(retries) == [2]

    def test_nor_one_from_which_no_deadline_could_be_counted(self, station):
        task(station, OSError(), retry_for=10).apply_async(headers={"taskkit_first_failed_at": "yesterday"})
        station.run_next()

        assert isinstance(station.take().headers["taskkit_first_failed_at"], float)

    def test_a_requeue_begins_to_count_anew(self, station, retries):
        few = RetryPolicy(backoff=2, jitter=False, max_retries=1)
        job = task(station, *[KeyError() for _ in range(4)], retry_policies={KeyError: few})
        run(station, job)

        requeue(DeadLetter.objects.get())
        station.run_all()

        assert delays(retries) == [2, 2]
        assert DeadLetter.objects.get().status == "dead"

    @pytest.mark.parametrize(
        ("policies", "complaint"),
        [
            ({KeyError: 5}, r"t\.job: retry_policies\[KeyError\]: 5 makes no sense; give a RetryPolicy"),
            ({"KeyError": STEADY}, r"t\.job: retry_policies: 'KeyError' is not an exception class"),
            ([KeyError], r"t\.job: retry_policies: \[<class 'KeyError'>\] makes no sense; give a dict"),
        ],
    )
    def test_nonsense_is_named(self, station, policies, complaint):
        with pytest.raises(Exception, match=complaint):
            rules_of(task(station, retry_policies=policies))


class TestRetryIn:
    @pytest.mark.parametrize("said", [90, timedelta(seconds=90), 89.5, Retryable(delay=90)])
    def test_it_says_when(self, station, retries, said):
        run(station, task(station, OSError(), retry_in=lambda exc, attempt: said))

        assert delays(retries) == [90]

    def test_none_leaves_it_to_the_policy(self, station, retries):
        run(station, task(station, OSError(), retry_in=lambda exc, attempt: None))

        assert delays(retries) == [1]

    @pytest.mark.parametrize("said", [Permanent, Permanent("no")])
    def test_it_may_give_up(self, station, retries, said):
        run(station, task(station, OSError(), retry_in=lambda exc, attempt: said))

        assert DeadLetter.objects.get().reason == "permanent"

    def test_what_it_says_to_that_is_what_the_dead_letter_says(self, station):
        run(
            station, task(station, OSError("refused"), retry_in=lambda exc, attempt: Permanent("the account is closed"))
        )

        letter = DeadLetter.objects.get()
        assert letter.exception_message == "the account is closed"
        assert letter.exception_class.endswith(".Permanent")
        assert "OSError: refused" in letter.traceback

    def test_it_may_snooze(self, station, retries):
        run(station, task(station, OSError(), OSError(), max_retries=1, retry_in=lambda exc, attempt: Snooze(8)))

        assert [(event.delay, event.counted) for event in retries] == [(8, False), (8, False)]

    def test_as_a_method_it_knows_task_error_and_attempt(self, station, retries):
        class Asked(BaseTaskWithRetry):
            abstract = True

            def retry_in(self, exc, attempt):
                return {KeyError: 10, OSError: 20}[type(exc)] * attempt + len(self.name)

        run(station, task(station, KeyError(), OSError(), base=Asked))

        assert delays(retries) == [10 + 5, 40 + 5]

    def test_it_is_not_asked_of_what_is_never_retried(self, station, retries):
        run(station, task(station, KeyError(), autoretry_for=(OSError,), retry_in=lambda exc, attempt: 5))

        assert retries == []

    def test_it_does_not_lift_the_limit(self, station, retries):
        run(station, task(station, *[OSError()] * 3, max_retries=1, retry_in=lambda exc, attempt: 5))

        assert delays(retries) == [5]
        assert DeadLetter.objects.get().reason == "retries_exhausted"

    def test_one_that_fails_itself_leaves_it_to_the_policy(self, station, retries, caplog):
        run(station, task(station, OSError(), retry_in=lambda exc, attempt: 1 / 0))

        assert delays(retries) == [1]
        assert "its retry_in() failed" in caplog.text

    @pytest.mark.parametrize("said", ["soon", -3, float("nan"), Snooze])
    def test_nonsense_is_named_and_leaves_it_to_the_policy(self, station, retries, caplog, said):
        """A time that was worked out, and is past, is no reason to give a task up."""
        run(station, task(station, OSError("net"), retry_in=lambda exc, attempt: said))

        assert f"retry_in() returned {said!r}" in caplog.text
        assert delays(retries) == [1]


class TestWhatTheErrorAsksFor:
    def test_it_is_never_run_earlier_and_only_a_little_later(self, station, retries):
        job = task(station, *[Asking(100) for _ in range(5)])
        run(station, job)

        assert all(100 <= delay <= 110 for delay in delays(retries))

    def test_it_beats_the_backoff_also_if_that_is_longer(self, station, retries):
        job = task(station, Asking(3), retry_backoff=500)
        job.uniform = lambda low, high: low
        run(station, job)

        assert delays(retries) == [3]

    def test_who_came_back_as_asked_and_failed_again_is_as_patient_as_the_policy(self, station, retries):
        job = task(station, Asking(0), Asking(0), Asking(500), retry_backoff=60)
        job.uniform = lambda low, high: low
        run(station, job)

        assert delays(retries) == [1, 120, 500]

    def test_it_is_capped(self, station, retries):
        job = task(station, Asking(10**8), retry_after_max=timedelta(hours=1))
        job.uniform = lambda low, high: high
        run(station, job)

        assert delays(retries) == [3660]

    def test_asked_for_no_delay_it_comes_back_after_a_second_or_two(self, station, retries):
        job = task(station, Asking(0))
        job.uniform = lambda low, high: low
        run(station, job)

        assert delays(retries) == [1]

    def test_a_retry_without_countdown_heeds_it_too(self, station, retries):
        @station.app.task(base=BaseTaskWithRetry, bind=True)
        def job(self):
            if not self.request.retries:
                raise self.retry(exc=Asking(100))

        job.uniform = lambda low, high: low
        run(station, job)

        assert delays(retries) == [100]


class TestDeadline:
    @pytest.fixture
    def clock(self, monkeypatch):
        """A clock that goes on by the delay of each retry."""
        from django_taskkit.base_tasks import attempt, next_message

        class Clock:
            now = 1_000_000.0

            def time(self):
                return self.now

        clock = Clock()
        monkeypatch.setattr(attempt, "time", clock)
        monkeypatch.setattr(next_message, "time", clock)

        def receiver(sender, event, **kwargs):
            clock.now += event.delay or 0

        task_retry_scheduled.connect(receiver)
        yield clock
        task_retry_scheduled.disconnect(receiver)

    def test_after_retry_for_the_task_is_dead(self, station, retries, clock):
        run(station, task(station, *[OSError()] * 9, max_retries=None, retry_for=timedelta(seconds=10)))

        assert delays(retries) == [1, 2, 4]  # the next would start 15 seconds after the first failure
        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.attempts) == ("deadline", 4)

    def test_a_policy_may_have_one_of_its_own(self, station, retries, clock):
        hasty = RetryPolicy(max_retries=None, backoff=4, factor=1, jitter=False, retry_for=9)
        run(station, task(station, *[KeyError()] * 5, retry_policies={KeyError: hasty}))

        assert delays(retries) == [4, 4]
        assert DeadLetter.objects.get().reason == "deadline"

    def test_what_the_error_asks_for_can_be_too_late(self, station, retries):
        run(station, task(station, Asking(3600), retry_for=60))

        assert retries == []
        assert DeadLetter.objects.get().reason == "deadline"

    def test_a_retry_that_would_come_after_the_message_expires_is_dead_at_once(self, station, retries):
        job = task(station, OSError(), retry_backoff=60)

        result = run(station, job, expires=datetime.now(timezone.utc) + timedelta(seconds=30))

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.exception_class) == ("deadline", "OSError")
        assert result.state == "FAILURE"
        assert retries == []

    def test_one_that_comes_before_is_sent(self, station, retries):
        run(station, task(station, OSError(), retry_backoff=20), expires=30)

        assert delays(retries) == [20]

    def test_so_is_a_snooze_past_it(self, station):
        told = []
        run(station, task(station, Snooze(3600), on_retries_exhausted=lambda *args: told.append(args)), expires=30)

        assert DeadLetter.objects.get().reason == "deadline"
        assert told == []

    def test_and_a_retry_of_the_tasks_own(self, station):
        @station.app.task(base=BaseTaskWithRetry, bind=True)
        def job(self):
            raise self.retry(exc=OSError("net"), countdown=3600)

        run(station, job, expires=30)

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.exception_class) == ("deadline", "OSError")

    @pytest.mark.parametrize("expires", [7200, datetime.now(timezone.utc) + timedelta(hours=2)])
    def test_a_retry_may_have_a_later_one(self, station, retries, expires):
        @station.app.task(base=BaseTaskWithRetry, bind=True)
        def job(self):
            if not self.request.retries:
                raise self.retry(countdown=3600, expires=expires)

        run(station, job, expires=30)

        assert delays(retries) == [3600]

    def test_or_an_earlier_one(self, station, retries):
        run(station, task(station, OSError(), retry_backoff=60, retry_kwargs={"expires": 30}))

        assert retries == []
        assert DeadLetter.objects.get().reason == "deadline"

    def test_a_requeue_begins_anew(self, station, retries, clock):
        run(station, task(station, *[OSError()] * 4, max_retries=None, retry_for=2))
        clock.now += 50_000

        requeue(DeadLetter.objects.get())
        station.run_all()

        assert delays(retries) == [1, 1]


class TestWhatHappensInTheEnd:
    def test_the_task_is_told_when_its_retries_are_exhausted(self, station):
        told = []
        run(
            station,
            task(
                station,
                *[OSError("net")] * 3,
                max_retries=1,
                on_retries_exhausted=lambda exc, attempt: told.append((str(exc), attempt)),
            ),
        )

        assert told == [("net", 2)]

    def test_so_it_is_when_its_own_retry_names_no_error(self, station):
        told = []

        def tell(exc, attempt):
            told.append((type(exc).__name__, attempt))

        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=0, on_retries_exhausted=tell)
        def job(self):
            try:
                int("net")
            except ValueError:
                self.retry()

        run(station, job)

        assert told == [("MaxRetriesExceededError", 1)]
        assert DeadLetter.objects.get().reason == "retries_exhausted"

    def test_it_is_not_told_of_what_was_never_retried(self, station):
        told = []
        run(station, task(station, Permanent("no"), on_retries_exhausted=lambda *args: told.append(args)))

        assert told == []

    def test_what_it_raises_then_is_logged_and_changes_nothing(self, station, caplog):
        run(station, task(station, OSError("net"), max_retries=0, on_retries_exhausted=lambda exc, attempt: 1 / 0))

        assert DeadLetter.objects.get().exception_message == "net"
        assert "its on_retries_exhausted() failed" in caplog.text


class TestRetryQueue:
    @pytest.fixture
    def lane(self, station):
        """Run what is in the queue for retries."""

        def run_next():
            home, station.queue = station.queue, "slow"
            try:
                return station.run_next()
            finally:
                station.queue = home

        return run_next

    def test_retries_go_there_and_stay_there(self, station, lane):
        run(station, task(station, OSError(), OSError(), retry_queue="slow"))

        assert lane() is not None
        assert station.run_next() is None
        assert lane() is not None
        assert lane() is None

    def test_what_dies_there_is_requeued_where_it_came_from(self, station, lane):
        run(station, task(station, OSError(), OSError(), retry_queue="slow", max_retries=1))
        lane()

        letter = DeadLetter.objects.get()
        assert letter.queue == station.queue
        requeue(letter)

        assert station.run_next() is not None
        assert lane() is None

    def test_a_snooze_stays_at_home(self, station):
        job = task(station, Snooze(5), retry_queue="slow")
        job.delay()
        station.run_next()

        assert station.waiting() == 1

    def test_a_queue_that_is_said_at_the_call_of_retry_counts_more(self, station, lane):
        @station.app.task(base=BaseTaskWithRetry, bind=True, retry_queue="slow")
        def job(self):
            if not self.request.retries:
                raise self.retry(countdown=1, queue=station.queue)

        job.delay()
        station.run_next()

        assert lane() is None
        assert station.run_next() is not None
