"""Celery's documented examples of retrying, and its own tests of it, restated for tasks of :class:`BaseTaskWithRetry`.

From the user guide on tasks ("Retrying", "Automatic retry for known exceptions") and Celery's unit tests of retries,
on the real message path where Celery takes the eager one, and eagerly too where the eager one is the point.

============================================  =========  ==============================================================
In Celery                                     here       why
============================================  =========  ==============================================================
``autoretry_for``, ``dont_autoretry_for``     the same
``retry_kwargs``                              the same   but ``max_retries: None`` in it means no limit
``max_retries``: a number, None               the same
``max_retries`` left out: 3                   differs    5: three retries may all fall into an outage of 5 s
``retry_backoff``: True, a number             the same
``retry_backoff`` left out: 180 s each time   differs    1 s, doubled: who asks for retries wants the first one soon
``retry_backoff=False``                       the same   ``default_retry_delay`` each time
``default_retry_delay`` given, no backoff     the same
``retry_backoff_max``, 600 if left out        the same
``retry_jitter=True``                         differs    never below 1 s: 0 s is no wait, and breaks quorum queues
``retry_jitter`` left out: full               differs    equal: full jitter spends 3 retries in 0 s one time in 30
options of a base class, overridden           the same   in the decorator or in a subclass
a class registered by ``register_task``       the same
``self.retry(exc=, countdown=, eta=)``        the same
``self.retry()`` without a countdown: 180 s   differs    as long as the options say; with ``retry_backoff=False`` 180 s
``self.retry(max_retries=)``                  the same   but for this run alone; Celery keeps it on the task's object
``self.retry(args=, kwargs=, throw=)``        the same
a ``retry`` of the task's own                 differs    called by the task itself alone; ``on_retry`` is always called
what is raised when retries are used up       the same   ``exc``, the error being handled, ``MaxRetriesExceededError``
what a retry keeps (id, queue, headers, …)    the same
pydantic models as arguments                  the same   but arguments that don't fit a model are not retried
============================================  =========  ==============================================================
"""

from datetime import datetime, timedelta, timezone
from urllib.error import HTTPError

import pytest
from celery.exceptions import MaxRetriesExceededError
from celery.result import AsyncResult

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db


class Overloaded(Exception):
    """What the service of the examples answers with when it is busy."""


class LoginError(Exception):
    pass


def overload(*args):
    """Call the service of the examples."""
    raise Overloaded(*args)


@pytest.fixture
def runs():
    """The arguments of each run."""
    return []


def low(least, most):
    return least


def high(least, most):
    return most


@pytest.fixture
def divide(station, runs):
    """Makes a task that divides, of our class, with the options given."""

    def make(base=BaseTaskWithRetry, **options):
        @station.app.task(base=base, name="t.divide", **options)
        def divide(a, b):
            runs.append((a, b))
            return a / b

        return divide

    return make


class TestAutomaticRetryForKnownExceptions:
    def test_the_named_exception_is_retried_and_the_task_recovers(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, autoretry_for=(Overloaded,))
        def refresh(user):
            runs.append(user)
            if len(runs) < 3:
                raise Overloaded
            return f"timeline of {user}"

        result = refresh.delay("ada")
        station.run_all()

        assert runs == ["ada"] * 3
        assert result.get(timeout=1) == "timeline of ada"

    def test_another_exception_is_not(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, autoretry_for=(Overloaded,))
        def refresh(user):
            runs.append(user)
            raise LoginError

        refresh.delay("ada")
        station.run_all()

        assert runs == ["ada"]

    def test_arguments_for_the_retry_do_the_same_as_a_retry_by_hand(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, autoretry_for=(Overloaded,), retry_kwargs={"max_retries": 4})
        def automatic():
            runs.append("automatic")
            raise Overloaded

        @station.app.task(base=BaseTaskWithRetry, autoretry_for=(), bind=True)
        def by_hand(self):
            runs.append("by hand")
            try:
                overload()
            except Overloaded as exc:
                raise self.retry(exc=exc, max_retries=4) from exc

        automatic.delay()
        by_hand.delay()
        station.run_all()

        assert (runs.count("automatic"), runs.count("by hand")) == (5, 5)
        assert set(DeadLetter.objects.values_list("reason", flat=True)) == {"retries_exhausted"}

    def test_any_error(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, autoretry_for=(Exception,), max_retries=1)
        def anything():
            runs.append(1)
            raise [KeyError, OSError][len(runs) - 1]

        anything.delay()
        station.run_all()

        assert len(runs) == 2

    def test_differs_without_options_it_is_retried_five_times_and_soon(self, station, divide, delays):
        divide(autoretry_for=(ZeroDivisionError,), retry_jitter=False).delay(1, 0)
        station.run_all()

        assert delays == [1, 2, 4, 8, 16]


class TestBackoff:
    @pytest.fixture
    def fetch(self, station):
        def make(**options):
            @station.app.task(base=BaseTaskWithRetry, autoretry_for=(HTTPError,), **options)
            def fetch(url):
                raise HTTPError(url, 500, "Error", {}, None)

            return fetch

        return make

    def test_exponential_backoff_doubles_from_one_second(self, station, fetch, delays):
        fetch(retry_backoff=True, retry_jitter=False, max_retries=4).delay("http://localhost/error")
        station.run_all()

        assert delays == [1, 2, 4, 8]

    def test_a_number_is_the_first_delay(self, station, fetch, delays):
        fetch(retry_backoff=3, retry_jitter=False, max_retries=4).delay("http://localhost/error")
        station.run_all()

        assert delays == [3, 6, 12, 24]

    def test_ten_minutes_are_the_longest_delay_unless_told_otherwise(self, station, fetch, delays):
        fetch(retry_backoff=200, retry_jitter=False, max_retries=3).delay("http://localhost/error")
        station.run_all()

        assert delays == [200, 400, 600]

    def test_jitter_at_its_highest_is_the_backoff(self, station, fetch, delays):
        fetch(retry_backoff=True, retry_jitter=True, max_retries=4, uniform=staticmethod(high)).delay(
            "http://localhost/error"
        )
        station.run_all()

        assert delays == [1, 2, 4, 8]

    def test_differs_jitter_at_its_lowest_is_a_second_and_not_none(self, station, fetch, delays):
        fetch(retry_backoff=True, retry_jitter=True, max_retries=4, uniform=staticmethod(low)).delay(
            "http://localhost/error"
        )
        station.run_all()

        assert delays == [1, 1, 1, 1]

    def test_differs_by_default_the_jitter_leaves_half_of_the_backoff(self, station, fetch, delays):
        fetch(retry_backoff=8, max_retries=3, uniform=staticmethod(low)).delay("http://localhost/error")
        station.run_all()

        assert delays == [4, 8, 16]

    def test_without_backoff_the_default_delay_is_waited_each_time(self, station, fetch, delays):
        fetch(retry_backoff=False, default_retry_delay=30, max_retries=2).delay("http://localhost/error")
        station.run_all()

        assert delays == [30, 30]


class TestLimits:
    def test_max_retries_of_the_task(self, station, divide, runs):
        divide(autoretry_for=(ZeroDivisionError,), max_retries=3).delay(1, 0)
        station.run_all()

        assert len(runs) == 4

    def test_that_of_retry_kwargs_wins(self, station, divide, runs):
        divide(autoretry_for=(ZeroDivisionError,), max_retries=3, retry_kwargs={"max_retries": 5}).delay(1, 0)
        station.run_all()

        assert len(runs) == 6

    def test_it_can_be_changed_on_the_task_that_is_registered(self, station, divide, runs):
        task = divide(autoretry_for=(ZeroDivisionError,))
        task.max_retries = 1
        task.delay(1, 0)
        station.run_all()

        assert len(runs) == 2

    def test_none_is_no_limit(self, station, divide, runs):
        divide(autoretry_for=(ZeroDivisionError,), max_retries=None).delay(1, 0)
        for _ in range(40):
            station.run_next()

        assert len(runs) == 40
        assert station.waiting() == 1

    def test_no_retries_raise_the_error_itself(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, max_retries=0, autoretry_for=(Exception,))
        def fails():
            runs.append(1)
            raise Overloaded

        result = fails.delay()
        station.run_all()

        assert len(runs) == 1
        with pytest.raises(Overloaded):
            result.get(timeout=1)

    def test_an_excluded_exception_is_not_retried_though_its_base_is(self, station, divide, runs):
        divide(
            autoretry_for=(ArithmeticError,),
            dont_autoretry_for=(ZeroDivisionError,),
            retry_kwargs={"max_retries": 5},
        ).delay(1, 0)
        station.run_all()

        assert len(runs) == 1


class OurBaseTaskWithRetry(BaseTaskWithRetry):
    """The class-based example of the user guide, with our class in the place of ``Task``."""

    abstract = True
    autoretry_for = (TypeError,)
    max_retries = 5
    retry_backoff = True
    retry_backoff_max = 700
    retry_jitter = False


class WithKwargs(OurBaseTaskWithRetry):
    abstract = True
    max_retries = 3
    retry_kwargs = {"max_retries": 5}


class TestOptionsOfABaseClass:
    @pytest.fixture
    def add(self, station, runs):
        def make(base=OurBaseTaskWithRetry, **options):
            @station.app.task(base=base, name="t.add", **options)
            def add(a, b):
                runs.append((a, b))
                return a + b

            return add

        return make

    def test_they_hold_for_its_tasks(self, station, add, runs, delays):
        add().delay(1, "a")
        station.run_all()

        assert len(runs) == 6
        assert delays == [1, 2, 4, 8, 16]

    def test_the_decorator_overrides_what_is_retried(self, station, divide, runs):
        divide(base=OurBaseTaskWithRetry, autoretry_for=(ZeroDivisionError,)).delay(1, 0)
        station.run_all()

        assert len(runs) == 6

    def test_retry_kwargs_come_from_the_class(self, station, add, runs):
        add(base=WithKwargs).delay(1, "a")
        station.run_all()

        assert len(runs) == 6

    def test_the_decorator_overrides_retry_kwargs(self, station, add, runs):
        add(base=WithKwargs, retry_kwargs={"max_retries": 2}).delay(1, "a")
        station.run_all()

        assert len(runs) == 3

    def test_the_decorator_switches_the_backoff_off(self, station, add, delays):
        add(retry_backoff=False, default_retry_delay=7).delay(1, "a")
        station.run_all()

        assert delays == [7] * 5

    def test_the_decorator_overrides_the_longest_delay(self, station, add, delays):
        add(retry_backoff_max=6).delay(1, "a")
        station.run_all()

        assert delays == [1, 2, 4, 6, 6]

    def test_the_decorator_switches_the_jitter_on(self, station, add, delays):
        add(retry_jitter=True, uniform=staticmethod(lambda least, most: most - 1)).delay(1, "a")
        station.run_all()

        assert delays == [1, 1, 3, 7, 15]

    def test_an_exception_excluded_by_the_class_is_not_retried(self, station, add, runs):
        class ButForTypeError(OurBaseTaskWithRetry):
            abstract = True
            autoretry_for = (Exception,)
            dont_autoretry_for = (TypeError,)

        add(base=ButForTypeError).delay(1, "a")
        station.run_all()

        assert len(runs) == 1

    def test_a_task_that_is_a_class_of_its_own(self, station, runs, delays):
        class Divide(OurBaseTaskWithRetry):
            name = "t.class_based"
            autoretry_for = (ZeroDivisionError,)

            def run(self, a, b):
                runs.append(self.request.retries)
                return a / b

        task = station.app.register_task(Divide())
        task.delay(1, 0)
        station.run_all()

        assert runs == [0, 1, 2, 3, 4, 5]
        assert delays == [1, 2, 4, 8, 16]


class TestRetryByHand:
    """``self.retry()``; ``autoretry_for=()`` where Celery's example has none."""

    @pytest.fixture
    def by_hand(self, station):
        return lambda **options: station.app.task(
            base=BaseTaskWithRetry, bind=True, autoretry_for=(), retry_jitter=False, **options
        )

    def test_the_retry_has_the_same_id_and_goes_to_the_same_queue(self, station, by_hand):
        @by_hand()
        def update_status(self, oauth, text):
            try:
                overload(text)
            except (Overloaded, LoginError) as exc:
                raise self.retry(exc=exc) from exc

        result = update_status.apply_async(("key", "hello"), priority=7, headers={"tenant": "a"}, shadow="t.shown")
        station.run_next()

        message = station.take()
        assert message.headers["id"] == result.id
        assert message.headers["retries"] == 1
        assert message.payload[:2] == [["key", "hello"], {}]
        assert message.delivery_info["routing_key"] == station.queue
        assert message.properties["priority"] == 7
        assert (message.headers["tenant"], message.headers["shadow"]) == ("a", "t.shown")

    def test_the_state_tells_the_error_and_its_traceback(self, station, by_hand):
        @by_hand()
        def fails(self):
            raise self.retry(exc=Overloaded("busy"))

        result = fails.delay()
        station.run_next()

        assert result.state == "RETRY"
        assert isinstance(result.info, Overloaded)
        assert "Overloaded" in result.traceback

    def test_code_after_a_retry_is_not_reached(self, station, by_hand, runs):
        @by_hand(max_retries=1)
        def fails(self):
            self.retry(countdown=0)
            runs.append("reached")

        fails.delay()
        station.run_all()

        assert runs == []

    def test_a_countdown_overrides_the_default_delay(self, station, by_hand, delays):
        @by_hand(default_retry_delay=30 * 60, retry_backoff=False, max_retries=1)
        def fails(self, countdown):
            raise self.retry(exc=Overloaded(), countdown=countdown)

        fails.delay(None)
        fails.delay(60)
        station.run_all()

        assert sorted(delays) == [60, 1800]

    def test_differs_without_a_countdown_the_options_say_how_long(self, station, by_hand, delays):
        @by_hand(max_retries=3)
        def fails(self):
            raise self.retry(exc=Overloaded())

        fails.delay()
        station.run_all()

        assert delays == [1, 2, 4]

    def test_an_eta_is_kept_in_another_time_zone_too(self, station, by_hand):
        station.app.conf.update(enable_utc=False, timezone="America/New_York")
        due = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)

        @by_hand()
        def fails(self):
            raise self.retry(exc=Overloaded(), eta=due)

        fails.delay()
        station.run_next()

        assert datetime.fromisoformat(station.take().headers["eta"]) == due

    def test_a_delay_means_the_same_in_another_time_zone(self, station, by_hand):
        station.app.conf.update(enable_utc=False, timezone="America/New_York")

        @by_hand()
        def fails(self):
            raise self.retry(exc=Overloaded(), countdown=3600)

        before = datetime.now(timezone.utc)
        fails.delay()
        station.run_next()
        after = datetime.now(timezone.utc)

        eta = datetime.fromisoformat(station.take().headers["eta"])
        assert before + timedelta(seconds=3599) <= eta <= after + timedelta(seconds=3601)

    def test_other_arguments_can_be_given(self, station, by_hand, runs):
        @by_hand()
        def work(self, found=None, place_holder=None, **kwargs):
            runs.append((found, place_holder, kwargs))
            if found is None:
                return self.retry(args=[place_holder, place_holder], kwargs=kwargs, countdown=0)
            return found

        result = work.delay(place_holder="test", more=1)
        station.run_all()

        assert runs == [(None, "test", {"more": 1}), ("test", "test", {"more": 1})]
        assert result.get(timeout=1) == "test"

    def test_differs_a_retry_of_the_tasks_own_is_not_how_failures_are_retried_but_its_on_retry_is_told(
        self, station, runs
    ):
        class Telling(BaseTaskWithRetry):
            abstract = True

            def retry(self, *args, **options):
                runs.append("retry")
                return super().retry(*args, **options)

            def on_retry(self, exc, *args):
                runs.append(f"on_retry {exc}")

        @station.app.task(base=Telling)
        def fails():
            raise Overloaded("busy")

        fails.delay()
        station.run_next()

        assert runs == ["on_retry busy"]

    def test_with_autoretry_a_retry_by_hand_is_not_retried_once_more(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, bind=True, autoretry_for=(Exception,))
        def work(self, found=None):
            runs.append(found)
            if found is None:
                return self.retry(exc=Overloaded(), args=["test"], kwargs={}, countdown=0)
            return found

        work.delay()
        station.run_all()

        assert runs == [None, "test"]


class TestWhenRetriesAreUsedUp:
    def dies(self, station, body, **options):
        task = station.app.task(base=BaseTaskWithRetry, bind=True, name="t.dies", autoretry_for=(), **options)(body)
        result = task.delay(0xFF, care=False)
        station.run_all()
        return result

    def test_the_error_that_was_given_is_raised(self, station):
        def body(self, *args, **kwargs):
            raise self.retry(exc=LoginError("no"), countdown=0)

        with pytest.raises(LoginError, match="no"):
            self.dies(station, body, max_retries=2).get(timeout=1)

    def test_the_error_that_is_being_handled_is_raised_again(self, station):
        def body(self, *args, **kwargs):
            try:
                overload("busy")
            except Overloaded as exc:
                self.retry(exc=exc, countdown=0)

        with pytest.raises(Overloaded, match="busy"):
            self.dies(station, body, max_retries=2).get(timeout=1)

    def test_without_an_error_it_is_that_of_too_many_retries_with_the_arguments(self, station):
        seen = []

        def body(self, *args, **kwargs):
            try:
                raise self.retry(countdown=0)
            except MaxRetriesExceededError as exc:
                seen.append((exc.task_args, exc.task_kwargs))
                raise

        with pytest.raises(MaxRetriesExceededError):
            self.dies(station, body, max_retries=2).get(timeout=1)
        assert [(list(args), kwargs) for args, kwargs in seen] == [([0xFF], {"care": False})]

    def test_a_limit_that_is_given_counts_instead_of_the_tasks(self, station, runs):
        def body(self, *args, **kwargs):
            runs.append(1)
            raise self.retry(countdown=0, max_retries=10)

        self.dies(station, body, max_retries=3)

        assert len(runs) == 11

    def test_a_limit_of_none_at_all_ends_it_though_autoretry_would_go_on(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, bind=True, autoretry_for=(Exception,), max_retries=10)
        def fails(self):
            runs.append(1)
            if len(runs) == 3:
                self.retry(exc=Overloaded(), max_retries=0)
            self.retry(exc=Overloaded())

        result = fails.delay()
        station.run_all()

        assert len(runs) == 3
        with pytest.raises(Overloaded):
            result.get(timeout=1)

    def test_differs_that_limit_is_forgotten_with_the_run(self, station, runs):
        @station.app.task(base=BaseTaskWithRetry, bind=True, autoretry_for=(Exception,), max_retries=2)
        def fails(self, gives_up):
            runs.append(gives_up)
            if gives_up:
                self.retry(exc=Overloaded(), max_retries=0)
            raise Overloaded

        fails.delay(True)
        fails.delay(False)
        station.run_all()

        assert runs == [True, False, False, False]


class TestEager:
    def eager(self, station, body, **options):
        return station.app.task(base=BaseTaskWithRetry, bind=True, name="t.eager", **options)(body)

    def test_it_returns_what_the_last_run_returned(self, station, runs):
        def body(self, a, b, max_retries=None):
            runs.append(1)
            limit = self.max_retries if max_retries is None else max_retries
            if self.request.retries >= limit:
                return a
            raise self.retry(countdown=0, max_retries=limit)

        task = self.eager(station, body, max_retries=3)

        assert task.apply([0xFF, 0xFFFF]).get() == 0xFF
        assert len(runs) == 4
        assert task.apply([0xFF, 0xFFFF], {"max_retries": 10}).get() == 0xFF
        assert len(runs) == 4 + 11

    def test_it_needs_no_arguments(self, station):
        def body(self, **kwargs):
            if self.request.retries < 3:
                raise self.retry(countdown=0)
            return 42

        assert self.eager(station, body, max_retries=3).apply(propagate=True).get() == 42

    @pytest.mark.parametrize("throw", [True, False])
    @pytest.mark.parametrize("raises", [True, False], ids=["raised", "returned"])
    def test_a_retry_may_be_raised_or_returned(self, station, throw, raises):
        def body(self):
            try:
                if self.request.retries >= 3:
                    return 42
                overload()
            except Overloaded as exc:
                retry = self.retry(exc=exc, throw=throw)
                if raises:
                    raise retry from exc
                return retry

        assert self.eager(station, body, max_retries=3).apply().get() == 42

    def test_the_arguments_of_the_retry_may_be_others(self, station):
        def body(self, found=None, place_holder=None, **kwargs):
            if found is None:
                return self.retry(exc=Overloaded(), args=[place_holder, place_holder], kwargs=kwargs)
            return found

        task = self.eager(station, body)

        assert task.si(place_holder="test").apply().get() == "test"

    def test_the_error_comes_when_retries_are_used_up(self, station, runs):
        def body(self, a, b, kwarg=1, **kwargs):
            runs.append(kwarg)
            try:
                overload("busy")
            except Overloaded as exc:
                kwargs.update(kwarg=kwarg)
                raise self.retry(countdown=0, exc=exc, kwargs=kwargs) from exc

        result = self.eager(station, body, max_retries=2).apply([1, 2], {"kwarg": 0xF})

        with pytest.raises(Overloaded):
            result.get()
        assert runs == [0xF] * 3

    def test_without_an_error_it_is_that_of_too_many_retries(self, station):
        def body(self, *args, **kwargs):
            raise self.retry(countdown=0)

        result = self.eager(station, body, max_retries=2, autoretry_for=()).apply((1, 2), {"care": False})

        with pytest.raises(MaxRetriesExceededError) as caught:
            result.get()
        assert (caught.value.task_args, caught.value.task_kwargs) == ((1, 2), {"care": False})

    def test_autoretry(self, divide, runs):
        divide(autoretry_for=(ZeroDivisionError,), retry_kwargs={"max_retries": 5}).apply((1, 0))

        assert len(runs) == 6

    def test_a_limit_given_in_one_run_ends_it(self, station, runs):
        def body(self):
            runs.append(1)
            if len(runs) == 3:
                self.retry(exc=Overloaded, max_retries=0)
            self.retry(exc=Overloaded)

        result = self.eager(station, body, max_retries=10, autoretry_for=(Exception,)).apply()

        with pytest.raises(Overloaded):
            result.get()
        assert len(runs) == 3


class TestOutsideOfAWorker:
    def test_a_task_that_is_called_as_a_function_raises_and_sends_nothing(self, station):
        @station.app.task(base=BaseTaskWithRetry, bind=True)
        def fails(self):
            raise self.retry(exc=Overloaded("busy"))

        with pytest.raises(Overloaded):
            fails()
        assert station.waiting() == 0


class TestPydantic:
    @pytest.fixture
    def order_class(self):
        pydantic = pytest.importorskip("pydantic")
        return pydantic.create_model("Order", number=(int, ...), note=(str, ""))

    def test_each_run_gets_the_model_and_the_message_its_plain_form(self, station, order_class, runs):
        def pay(order: order_class) -> order_class:
            runs.append(order)
            if len(runs) < 3:
                raise Overloaded
            return order

        result = station.app.task(base=BaseTaskWithRetry, pydantic=True)(pay).delay({"number": "7"})
        station.run_next()
        message = station.take()
        message.requeue()
        station.run_all()

        assert message.payload[0] == [{"number": "7"}]
        assert runs == [order_class(number=7)] * 3
        assert result.get(timeout=1) == {"number": 7, "note": ""}

    def test_differs_arguments_that_do_not_fit_are_not_retried(self, station, order_class, runs):
        def pay(order: order_class):
            runs.append(order)

        station.app.task(base=BaseTaskWithRetry, pydantic=True)(pay).delay({"number": "seven"})
        station.run_all()

        assert runs == []
        assert DeadLetter.objects.get().attempts == 1


def test_the_result_of_a_task_that_was_retried_is_found_by_the_id_of_the_call(station, divide, runs):
    task = divide(autoretry_for=(ZeroDivisionError,), max_retries=2)
    result = task.delay(1, 0)
    station.run_all()

    assert len(runs) == 3
    assert AsyncResult(result.id, app=station.app).state == "FAILURE"
