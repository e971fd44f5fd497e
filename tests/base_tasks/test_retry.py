"""Tasks that retry by themselves; Celery's own traps are shown in test_celery_traps.py."""

import functools
import re
from datetime import datetime, timedelta, timezone

import pytest
from celery.exceptions import Ignore, MaxRetriesExceededError, Reject, SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from django_taskkit.backoff import Backoff, NoJitter
from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask, RetryPolicy
from django_taskkit.base_tasks.options import problems
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db


def delays(retries):
    return [event.delay for event in retries]


def always(exc):
    def run(*args, **kwargs):
        raise exc

    return run


def task(station, fun, **options):
    options.setdefault("retry_jitter", False)
    return station.app.task(base=BaseTaskWithRetry, name=f"t.{fun.__name__}", **options)(fun)


def test_a_bare_task_retries_with_growing_delays_and_then_dies(station, retries):
    fail = task(station, always(ValueError("no")))

    fail.delay()
    station.run_all()

    assert delays(retries) == [1, 2, 4, 8, 16]
    assert [event.attempt for event in retries] == [1, 2, 3, 4, 5]
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.attempts) == ("retries_exhausted", 6)


def test_a_task_that_recovers_leaves_nothing_behind(station, retries):
    @station.app.task(base=BaseTaskWithRetry, bind=True)
    def recovering(self):
        if self.request.retries < 2:
            raise ValueError
        return "done"

    result = recovering.delay()
    station.run_all()

    assert len(retries) == 2
    assert result.get(timeout=1) == "done"
    assert not DeadLetter.objects.exists()


def test_a_retry_keeps_the_task_id_and_the_callers_headers(station):
    fail = task(station, always(ValueError("no")), max_retries=1)

    result = fail.apply_async(headers={"tenant": "t1"})
    station.run_all()

    letter = DeadLetter.objects.get()
    assert letter.task_id == result.id
    assert letter.headers["tenant"] == "t1"


def test_retry_delays_are_jittered_by_half_unless_told_otherwise(station, retries):
    fail = task(station, always(ValueError("no")), retry_jitter="equal", retry_backoff=10, max_retries=1)
    fail.uniform = lambda low, high: low

    fail.delay()
    station.run_all()

    assert delays(retries) == [5]


def test_the_randomness_may_be_given_in_the_decorator(station, retries):
    fail = task(
        station,
        always(ValueError("no")),
        retry_jitter="equal",
        retry_backoff=10,
        max_retries=1,
        uniform=lambda low, high: high,
    )

    fail.delay()
    station.run_all()

    assert delays(retries) == [10]


def test_decorrelated_jitter_remembers_the_delay_before(station, retries):
    fail = task(station, always(ValueError("no")), retry_jitter="decorrelated", retry_backoff=2, max_retries=3)
    fail.uniform = lambda low, high: high

    fail.delay()
    station.run_all()

    assert delays(retries) == [6, 18, 54]


def test_a_backoff_policy_is_used_as_it_is(station, retries):
    fail = task(
        station,
        always(ValueError("no")),
        retry_backoff=Backoff(base=3, factor=1, jitter=NoJitter()),
        max_retries=2,
    )

    fail.delay()
    station.run_all()

    assert delays(retries) == [3, 3]


def test_options_can_be_set_on_a_class(station, retries):
    class Patient(BaseTaskWithRetry):
        abstract = True
        max_retries = 2
        retry_backoff = timedelta(seconds=30)
        retry_jitter = False

    fail = station.app.task(base=Patient, name="patient")(always(ValueError("no")))

    fail.delay()
    station.run_all()

    assert delays(retries) == [30, 60]


def test_options_can_be_set_by_task_annotations(station, retries):
    station.app.conf.task_annotations = {"t.run": {"max_retries": 1, "retry_backoff": 7}}
    fail = task(station, always(ValueError("no")))

    fail.delay()
    station.run_all()

    assert delays(retries) == [7]


def test_one_exception_class_needs_no_tuple(station, retries):
    fail = task(station, always(KeyError("x")), autoretry_for=LookupError, max_retries=1)

    fail.delay()
    station.run_all()

    assert len(retries) == 1


def test_other_exceptions_than_those_named_die_at_once(station, retries):
    fail = task(station, always(KeyError("x")), autoretry_for=(OSError,))

    fail.delay()
    station.run_all()

    assert retries == []
    assert DeadLetter.objects.get().reason == "exception"


def test_excluded_exceptions_die_at_once(station, retries):
    fail = task(station, always(KeyError("x")), dont_autoretry_for=LookupError)

    fail.delay()
    station.run_all()

    assert retries == []
    assert DeadLetter.objects.get().reason == "exception"


def test_a_call_that_does_not_fit_the_task_is_not_retried(station, retries):
    @station.app.task(base=BaseTaskWithRetry, typing=False)
    def one(a):
        return a

    one.delay(1, 2, 3)
    station.run_all()

    assert retries == []
    assert DeadLetter.objects.get().exception_class == "TypeError"


class TestPydantic:
    @pytest.fixture
    def pay(self, station):
        pydantic = pytest.importorskip("pydantic")

        class Order(pydantic.BaseModel):
            number: int

        @station.app.task(base=BaseTaskWithRetry, pydantic=True, max_retries=1)
        def pay(order: Order):
            Order.model_validate({"number": "not a number either"})

        return pay

    def test_arguments_that_are_not_what_the_model_asks_for_are_not_retried(self, pay, station, retries):
        pay.delay({"number": "none"})
        station.run_all()

        assert retries == []
        assert DeadLetter.objects.get().exception_class.endswith("ValidationError")

    def test_the_same_error_inside_the_task_is(self, pay, station, retries):
        pay.delay({"number": 7})
        station.run_all()

        assert len(retries) == 1


def test_a_type_error_inside_the_task_is_retried(station, retries):
    @station.app.task(base=BaseTaskWithRetry, max_retries=1)
    def inside(a):
        return len(a)

    inside.delay(1)
    station.run_all()

    assert len(retries) == 1


def test_a_soft_time_limit_is_not_retried(station, retries):
    slow = task(station, always(SoftTimeLimitExceeded()))

    slow.delay()
    station.run_all()

    assert retries == []
    assert DeadLetter.objects.get().reason == "time_limit"


def test_a_soft_time_limit_is_retried_where_it_is_named(station, retries):
    slow = task(
        station,
        always(SoftTimeLimitExceeded()),
        autoretry_for=(SoftTimeLimitExceeded, OSError),
        max_retries=1,
    )

    slow.delay()
    station.run_all()

    assert len(retries) == 1


@pytest.mark.parametrize(("verdict", "reasons"), [(Ignore(), []), (Reject("no", requeue=False), ["rejected"])])
def test_ignore_and_reject_are_not_retried(station, retries, verdict, reasons):
    said = task(station, always(verdict))

    said.delay()
    station.run_all()

    assert retries == []
    assert [letter.reason for letter in DeadLetter.objects.all()] == reasons


def test_no_limit_can_be_said_in_retry_kwargs(station, retries):
    """Celery reads this None as "the default of 3"."""
    fail = task(station, always(ValueError("no")), retry_kwargs={"max_retries": None})

    fail.delay()
    for _ in range(10):
        station.run_next()

    assert len(retries) == 10
    assert not DeadLetter.objects.exists()


def test_retry_kwargs_give_limit_and_countdown_as_in_celery(station, retries):
    fail = task(station, always(ValueError("no")), retry_kwargs={"max_retries": 2, "countdown": 9})

    fail.delay()
    station.run_all()

    assert delays(retries) == [9, 9]


def test_a_backoff_of_the_task_beats_a_countdown_as_in_celery(station, retries):
    fail = task(station, always(ValueError("no")), retry_backoff=True, retry_kwargs={"max_retries": 2, "countdown": 9})

    fail.delay()
    station.run_all()

    assert delays(retries) == [1, 2]


def test_without_backoff_the_default_delay_counts_as_in_celery(station, retries):
    fail = task(station, always(ValueError("no")), retry_backoff=False, default_retry_delay=33, max_retries=2)

    fail.delay()
    station.run_all()

    assert delays(retries) == [33, 33]


@pytest.mark.parametrize("given", ["decorator", "class", "annotation"])
def test_a_default_delay_that_somebody_has_given_counts(station, retries, given):
    """Also Celery's own 180, and in a task of somebody else whose class is that of the application."""

    class Patient(BaseTaskWithRetry):
        abstract = True
        default_retry_delay = 180

    options = {"default_retry_delay": 180} if given == "decorator" else {}
    if given == "annotation":
        station.app.conf.task_annotations = {"*": {"default_retry_delay": 180}}

    @station.app.task(base=Patient if given == "class" else BaseTaskWithRetry, bind=True, max_retries=2, **options)
    def fail(self):
        raise self.retry(exc=ValueError("no"))

    fail.delay()
    station.run_all()

    assert delays(retries) == [180, 180]


def test_a_backoff_that_somebody_has_given_counts_more(station, retries):
    task(station, always(ValueError("no")), retry_backoff=4, default_retry_delay=180, max_retries=2).delay()
    station.run_all()

    assert delays(retries) == [4, 8]


def test_retry_kwargs_are_not_changed_by_a_run(station):
    options = {"max_retries": 1, "countdown": 2, "headers": {"a": "b"}}
    fail = task(station, always(ValueError("no")), retry_kwargs=options)

    fail.delay()
    station.run_all()

    assert options == {"max_retries": 1, "countdown": 2, "headers": {"a": "b"}}
    assert DeadLetter.objects.get().headers["a"] == "b"


class TestRetryByHand:
    def test_it_follows_the_policy_without_a_countdown(self, station, retries):
        @station.app.task(base=BaseTaskWithRetry, bind=True, retry_jitter=False, retry_backoff=4, max_retries=2)
        def by_hand(self):
            raise self.retry()

        by_hand.delay()
        station.run_all()

        assert delays(retries) == [4, 8]
        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.exception_class) == (
            "retries_exhausted",
            "celery.exceptions.MaxRetriesExceededError",
        )

    @pytest.mark.parametrize(("countdown", "seconds"), [(0.5, 1), (2.2, 3), (7, 7)])
    def test_a_countdown_is_rounded_up_to_whole_seconds(self, station, retries, countdown, seconds):
        """A fraction of a second destroys the task on a quorum queue."""

        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=1)
        def by_hand(self):
            raise self.retry(countdown=countdown)

        by_hand.delay()
        station.run_all()

        assert delays(retries) == [seconds]

    def test_a_time_that_is_almost_here_means_at_once(self, station):
        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=1)
        def by_hand(self):
            raise self.retry(eta=datetime.now(timezone.utc) + timedelta(milliseconds=300))

        by_hand.delay()
        station.run_next()

        assert station.take().headers["eta"] is None

    def test_a_time_further_away_is_kept(self, station):
        eta = datetime.now(timezone.utc) + timedelta(hours=1)

        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=1)
        def by_hand(self):
            raise self.retry(eta=eta)

        by_hand.delay()
        station.run_next()

        assert datetime.fromisoformat(station.take().headers["eta"]) == eta

    def test_a_limit_counts_for_its_run_only(self, station, retries):
        """Celery keeps it on the task, for every later run in the process."""

        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=4)
        def by_hand(self, limited):
            if limited:
                raise self.retry(exc=ValueError("limited"), max_retries=1)
            raise ValueError("unlimited")

        by_hand.delay(True)
        station.run_all()
        limited = len(retries)
        by_hand.delay(False)
        station.run_all()

        assert (limited, len(retries) - limited) == (1, 4)

    def test_a_limit_that_was_reached_is_not_overruled_by_autoretry(self, station, retries):
        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=4)
        def by_hand(self):
            raise self.retry(exc=ValueError("enough"), max_retries=0)

        by_hand.delay()
        station.run_all()

        assert retries == []
        assert DeadLetter.objects.get().reason == "retries_exhausted"

    def test_called_directly_it_raises_the_error_itself(self, station):
        fail = task(station, always(ValueError("no")))

        with pytest.raises(ValueError, match="no"):
            fail()

    def test_with_throw_off_the_task_goes_on(self, station, retries):
        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=3)
        def goes_on(self):
            if self.request.retries:
                return "second"
            self.retry(throw=False)
            return "first"

        goes_on.delay()

        assert station.run_all() == 2
        assert retries == []

    def test_the_error_of_an_exhausted_retry_can_be_caught(self, station):
        @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=0)
        def forgiving(self):
            try:
                raise self.retry()
            except MaxRetriesExceededError:
                return "gave up politely"

        result = forgiving.delay()
        station.run_all()

        assert result.get(timeout=1) == "gave up politely"
        assert not DeadLetter.objects.exists()


def test_a_run_that_has_sent_its_retry_and_then_fails_sends_no_second_one(station, retries):
    @station.app.task(base=BaseTaskWithRetry, bind=True, max_retries=3)
    def fail(self):
        self.retry(exc=ValueError("no"), throw=False)
        raise ValueError("no")

    fail.delay()
    station.run_next()

    assert station.waiting() == 1
    assert not DeadLetter.objects.exists()
    assert station.run_all() == 3
    assert DeadLetter.objects.get().attempts == 4


class TestEager:
    def test_an_eager_task_retries_in_place(self, station):
        runs = []

        @station.app.task(base=BaseTaskWithRetry, bind=True)
        def eager(self):
            runs.append(self.request.retries)
            if len(runs) < 3:
                raise ValueError
            return "done"

        assert eager.apply().get() == "done"
        assert runs == [0, 1, 2]

    def test_the_retries_of_each_policy_are_counted_there_too(self, station):
        runs = []

        @station.app.task(base=BaseTaskWithRetry, retry_policies={ValueError: RetryPolicy(max_retries=2)})
        def eager():
            runs.append(1)
            if len(runs) < 10:
                raise ValueError

        assert eager.apply().state == "FAILURE"
        assert len(runs) == 3

    def test_an_eager_failure_is_no_dead_letter(self, station):
        eager = task(station, always(ValueError("no")), max_retries=0)

        assert eager.apply().state == "FAILURE"
        assert not DeadLetter.objects.exists()


class TestUnpublishedRetry:
    """A retry that the broker does not take must not take the task with it."""

    @pytest.fixture
    def broken(self, station):
        """A task whose publishes fail as they do without a broker, from its first run on."""

        @station.app.task(base=BaseTaskWithRetry, bind=True, publish_pause=0)
        def broken(self, error="down"):
            failure = {"down": OperationalError("no broker"), "bad": ValueError("bad option")}[error]

            def send(*args, **kwargs):
                raise failure

            station.app.amqp.__dict__["send_task_message"] = send
            raise KeyError("first")

        yield broken
        station.app.amqp.__dict__.pop("send_task_message", None)

    def test_the_message_goes_back_to_the_broker(self, station, broken):
        result = broken.delay()

        station.run_next()

        assert station.waiting() == 1
        assert station.take().headers["id"] == result.id
        assert not DeadLetter.objects.exists()

    def test_acknowledged_before_it_is_a_dead_letter(self, station, broken):
        broken.acks_late = False
        broken.delay()

        station.run_next()

        letter = DeadLetter.objects.get()
        assert letter.reason == "publish_failed"
        assert "no broker" in letter.exception_message
        assert "KeyError: 'first'" in letter.traceback

    def test_a_retry_that_no_broker_would_take_is_a_dead_letter(self, station, broken):
        """Going back to the broker would repeat it for ever."""
        broken.delay(error="bad")

        station.run_next()

        assert station.waiting() == 0
        assert DeadLetter.objects.get().reason == "publish_failed"


class TestOptionsThatMakeNoSense:
    @pytest.mark.parametrize(
        ("options", "complaint"),
        [
            ({"max_retries": -1}, "t.run: max_retries: -1 makes no sense; give a whole number of retries"),
            ({"retry_backoff": "fast"}, "t.run: retry_backoff: 'fast' makes no sense; give seconds"),
            ({"retry_backoff_max": 0.9}, "a cap of 0.9 makes no sense; give at least the floor of 1 second"),
            ({"retry_jitter": "some"}, "t.run: retry_jitter: 'some' is not a jitter"),
            (
                {"autoretry_for": ("ValueError",)},
                "t.run: autoretry_for: 'ValueError' is not an exception class",
            ),
            ({"dont_autoretry_for": 3}, "t.run: dont_autoretry_for: 3 is not an exception class"),
            ({"retry_kwargs": [1]}, "t.run: retry_kwargs: \\[1\\] makes no sense"),
            ({"retry_kwargs": {"exc": OSError()}}, "t.run: retry_kwargs: 'exc' is .*take it out"),
            (
                {"retry_kwargs": {"countdown": -5}, "retry_backoff": False},
                "t.run: retry_kwargs\\['countdown'\\]: -5",
            ),
        ],
    )
    def test_they_are_found_with_the_task_the_value_and_the_remedy(self, station, options, complaint):
        task(station, always(ValueError("no")), **options)

        [(name, sentence)] = problems(station.app)
        assert name == "t.run"
        assert re.search(complaint, sentence)

    def test_they_do_not_keep_other_tasks_from_being_called(self, station):
        task(station, always(ValueError("no")), max_retries=-1)

        @station.app.task
        def innocent():
            return 1

        innocent.delay()

        assert not station.run_next().failed

    def test_found_too_late_they_do_not_hide_the_error_of_the_task(self, station):
        task(station, always(ValueError("the task's own")), max_retries=-1).delay()

        station.run_next()

        assert DeadLetter.objects.get().exception_message == "the task's own"


class Tenfold(BaseException):
    """Not an Exception, like gevent.Timeout."""


def test_an_exception_that_is_no_ordinary_one_is_retried_where_it_is_named(station):
    fail = task(station, always(Tenfold()), autoretry_for=(BaseException,), max_retries=1)

    fail.delay()
    station.run_next()

    assert station.take().headers["retries"] == 1


def test_headers_of_the_caller_survive_all_retries(station, retries):
    fail = task(station, always(ValueError("no")), max_retries=2)

    fail.apply_async(headers={"x-tenant": "t1"})
    station.run_all()

    assert len(retries) == 2
    assert DeadLetter.objects.get().headers["x-tenant"] == "t1"


def test_an_annotation_around_run_is_used(station):
    def around(run):
        def outer(*args, **kwargs):
            calls.append("around")
            return run(*args[-1:], **kwargs)

        return outer

    calls = []
    station.app.conf.task_annotations = {"t.fine": {"@run": around}}

    def fine(number):
        calls.append(number)

    task(station, fine).delay(7)
    station.run_next()

    assert calls == ["around", 7]


def test_a_decorator_that_adds_an_argument_is_no_call_that_can_not_fit(station, retries):
    def with_session(fun):
        @functools.wraps(fun)
        def inner(order_id):
            return fun("session", order_id)

        return inner

    @station.app.task(base=BaseTaskWithRetry, max_retries=1)
    @with_session
    def injected(session, order_id):
        return len(order_id)

    injected.delay(7)
    station.run_all()

    assert len(retries) == 1


def test_an_option_of_ones_own_by_any_name_does_no_harm(station, retries):
    fail = task(station, always(ValueError("no")), max_retries=1, retry_policy={"max_retries": 3})

    fail.delay()
    station.run_all()

    assert len(retries) == 1


def test_delay_on_commit_is_there(station, django_capture_on_commit_callbacks):
    @station.app.task(base=DeadLetterTask)
    def later():
        return 1

    with django_capture_on_commit_callbacks(execute=True):
        later.delay_on_commit()
        before = station.waiting()

    assert (before, station.waiting()) == (0, 1)


def test_a_subclass_with_an_init_of_its_own_still_retries(station, retries):
    class OwnInit(BaseTaskWithRetry):
        name = "own-init"
        max_retries = 1

        def __init__(self):
            self.client = object()

        def run(self):
            raise ValueError

    station.app.register_task(OwnInit()).delay()
    station.run_all()

    assert len(retries) == 1
