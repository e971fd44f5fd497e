"""assert_survives(): a project's test says which outage a task must outlive."""

import re
from datetime import timedelta

import pytest
from celery import shared_task

from django_taskkit.base_tasks import BaseTaskWithRetry, RetryPolicy
from django_taskkit.base_tasks.verdicts import Permanent
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.testing.surviving import assert_survives

MINUTE = timedelta(minutes=1)


class Busy(Exception):
    def __init__(self, *, supplier):
        super().__init__(supplier)


def complaint(*args, **options):
    with pytest.raises(AssertionError) as caught:
        assert_survives(*args, **options)
    return str(caught.value)


def test_a_task_that_survives_passes(task):
    send = task(max_retries=11)

    assert_survives(send, timedelta(minutes=10))
    assert_survives(send, 600)
    assert_survives(send, 600.0, odds=0.5)


def test_one_that_does_not_says_what_it_survives_and_how_many_retries_would_do(task):
    text = complaint(task(retry_jitter=False), 10 * MINUTE)

    assert text == (
        "orders.tasks.send survives an outage of 10m in 0% of cases, not in 99%; one of 31s it does. Remedy: "
        "max_retries of 10 would do, or longer delays. See: manage.py taskkit schedule orders.tasks.send --outage 600s"
    )


@pytest.mark.parametrize("odds", [0.5, 0.99, 1])
def test_as_many_retries_as_it_names_are_enough(task, odds):
    needed = int(complaint(task(), 5 * MINUTE, odds=odds).partition("max_retries of ")[2].split()[0])

    assert_survives(task("orders.tasks.patient", max_retries=needed), 5 * MINUTE, odds=odds)


def test_odds_decide(task):
    send = task()

    assert_survives(send, 22, odds=0.5)
    assert re.search("outage of 23s in (5|6)[0-9]% of cases, not in 99%; one of 18s it does", complaint(send, 23))


def test_odds_of_one_mean_the_worst_case(task):
    send = task()

    assert_survives(send, 16, odds=1)
    assert "in >99% of cases, not in 100%; one of 16s it does" in complaint(send, 17, odds=1)


def test_a_deadline_before_the_end_of_the_outage_is_named(task):
    text = complaint(task(max_retries=None, retry_for=MINUTE), timedelta(hours=1))

    assert "Remedy: retry_for of 1m ends before the outage; make it longer." in text


def test_delays_that_no_number_of_retries_makes_up_for_are_named(task):
    assert "2000 retries would not be enough; make the delays longer" in complaint(
        task(retry_backoff_max=1), timedelta(hours=1)
    )


def test_retries_without_a_limit_survive_anything(task):
    assert_survives(task(max_retries=None), timedelta(days=1000), odds=1)


class TestErrors:
    @pytest.fixture
    def send(self, task):
        return task(
            max_retries=1,
            autoretry_for=(OSError,),
            retry_policies={Busy: RetryPolicy(max_retries=20), LookupError: Permanent},
        )

    def test_are_judged_by_their_own_policy(self, send):
        assert_survives(send, timedelta(hours=1), exc=Busy)
        assert_survives(send, timedelta(hours=1), exc=Busy(supplier="x"))
        assert "max_retries of" in complaint(send, MINUTE, exc=ConnectionError)

    @pytest.mark.parametrize("exc", [KeyError, ValueError, ValueError("no")])
    def test_that_are_never_retried_survive_nothing(self, send, exc):
        text = complaint(send, 1, exc=exc)

        assert "orders.tasks.send is dead at its first" in text
        assert "autoretry_for" in text

    def test_that_cant_be_made_are_asked_for(self, send):
        class Strict(Exception):
            def __new__(cls, supplier):
                return super().__new__(cls, supplier)

        with pytest.raises(ValueError, match="give an error, not its class"):
            assert_survives(send, 1, exc=Strict)
        assert "dead at its first" in complaint(send, 1, exc=Strict("x"))


class TestOtherTasks:
    def test_without_retries_are_told_to_get_some(self, task):
        plain = task(base=None)

        assert "Give it base=BaseTaskWithRetry" in complaint(plain, 1)
        assert "Give it base=BaseTaskWithRetry" in complaint(plain, 1, exc=OSError)

    def test_with_celerys_own_are_judged_as_well(self, task):
        send = task(base=None, autoretry_for=(OSError,), dont_autoretry_for=(TimeoutError,), max_retries=3)

        assert_survives(send, 540)
        assert_survives(send, 540, exc=ConnectionError)
        assert "max_retries of 4 would do" in complaint(send, 541)
        assert "is dead at its first TimeoutError" in complaint(send, 1, exc=TimeoutError)

    def test_may_be_shared_ones(self, station):
        @shared_task(name="shared.patient", base=BaseTaskWithRetry, retry_policies={Busy: RetryPolicy(max_retries=20)})
        def patient():
            """Never run here."""

        assert_survives(patient, timedelta(hours=1), exc=Busy)


@pytest.mark.parametrize("outage", [-1, "1h", None, float("nan")])
def test_an_outage_that_makes_no_sense_is_refused(task, outage):
    with pytest.raises(ValueError, match="makes no sense"):
        assert_survives(task(), outage)


@pytest.mark.parametrize("odds", [0, 99, -0.5, float("nan")])
def test_odds_that_make_no_sense_are_refused(task, odds):
    with pytest.raises(ValueError, match=r"give a part of 1, for example 0\.99"):
        assert_survives(task(), 1, odds=odds)


def test_options_that_make_no_sense_are_named(task):
    with pytest.raises(ConfigurationError, match=r"orders\.tasks\.send: max_retries"):
        assert_survives(task(max_retries=-1), 1)
