"""Failures that django-celery-results stored, written by its own backend."""

import datetime

import pytest
from celery import chain
from django.apps import apps

from django_taskkit.dlq import requeue
from django_taskkit.dlq.transfer import celery_results
from django_taskkit.dlq.transfer.celery_results import NoMessageError, NoResultsError, failures, letters
from django_taskkit.dlq.transfer.importing import Importer
from django_taskkit.models import DeadLetter

pytest.importorskip("django_celery_results")

pytestmark = pytest.mark.django_db


class ShopError(Exception):
    pass


@pytest.fixture
def shop(tables_of_results, station):
    """An app that keeps the results of its tasks, which fail, and no dead letters yet."""
    station.app.conf.update(result_backend="django-db", result_extended=True)
    station.ran = []

    @station.app.task(name="shop.pay", dead_letter=False, shared=False)
    def pay(*args, **kwargs):
        station.ran.append((list(args), kwargs))
        if len(station.ran) == 1:
            raise ShopError("no money")

    station.pay = pay
    return station


def results():
    return apps.get_model("django_celery_results", "TaskResult").objects


def fail(shop, *args, **kwargs):
    shop.ran.clear()
    sent = shop.pay.delay(*args, **kwargs)
    shop.run_next()
    return results().get(task_id=sent.id)


def bring_in(shop):
    refused = {}
    with Importer(by="cli:bob", note=celery_results.NOTE, refuse=refused.__setitem__) as importer:
        for task_id, found in letters(shop.app, failures()):
            if isinstance(found, NoMessageError):
                importer.refuse(task_id, str(found))
            else:
                importer.add(task_id, found)
    return refused


def test_what_waited_in_a_chain_for_a_failure_is_refused(shop):
    sent = chain(shop.pay.s(1), shop.pay.s(text="receipt")).delay()
    shop.run_next()
    assert results().filter(status="FAILURE").count() == 2

    assert bring_in(shop) == {sent.id: celery_results.NEVER_RAN}
    assert DeadLetter.objects.get().task_id == sent.parent.id


def test_a_failure_becomes_a_dead_letter_that_runs_with_the_same_arguments(shop):
    result = fail(shop, 7, "it's", [1, None], text="two\nlines", path="C:\\new")

    assert bring_in(shop) == {}

    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.task_name, letter.status) == (result.task_id, "shop.pay", "dead")
    assert (letter.reason, letter.queue, letter.worker) == ("exception", shop.queue, result.worker or "")
    assert letter.exception_class.endswith("ShopError")
    assert letter.exception_message == "no money"
    assert letter.traceback == result.traceback
    assert letter.died_at == result.date_done
    assert letter.headers["lang"] == "py"
    assert requeue(letter).requeued == 1
    shop.run_next()
    assert shop.ran == [([7, "it's", [1, None]], {"text": "two\nlines", "path": "C:\\new"})] * 2
    letter.refresh_from_db()
    assert letter.status == "recovered"


def test_its_history_says_where_it_is_from_and_what_is_missing(shop):
    fail(shop)
    bring_in(shop)

    died, imported = DeadLetter.objects.get().events.all()
    assert (died.kind, imported.kind, imported.by) == ("died", "imported", "cli:bob")
    assert "no money" in died.note
    assert "does not know its chain, chord, links, headers, priority and retries" in imported.note


def test_it_is_in_the_group_of_failures_that_were_captured(shop):
    """Both are one failure: the same task, class and place."""
    fail(shop)
    bring_in(shop)
    shop.pay.dead_letter = True
    shop.ran.clear()
    shop.pay.delay()
    shop.run_next()

    assert DeadLetter.objects.count() == 2
    assert DeadLetter.objects.values("fingerprint").distinct().count() == 1


def test_importing_twice_changes_nothing(shop):
    fail(shop)
    bring_in(shop)
    bring_in(shop)

    assert DeadLetter.objects.get().events.count() == 2


def test_successes_are_left_alone(shop):
    shop.ran.append(None)
    shop.pay.delay()
    shop.run_next()

    assert results().filter(status="SUCCESS").exists()
    assert bring_in(shop) == {}
    assert not DeadLetter.objects.exists()


def test_those_of_a_time_can_be_asked_for(shop):
    result = fail(shop)
    later = result.date_done + datetime.timedelta(seconds=1)

    assert failures(since=result.date_done).count() == 1
    assert failures(since=later).count() == 0
    assert failures(until=result.date_done).count() == 0
    assert failures(until=later).count() == 1


@pytest.mark.parametrize(
    ("args", "why"),
    [
        (("x" * 3000,), "were shortened"),
        ((datetime.date(2026, 1, 1),), "objects that can't be read back"),
        ((b"\xff",), "can't be told for sure"),
    ],
)
def test_arguments_that_cant_be_told_are_refused_and_said_so(shop, args, why):
    result = fail(shop, *args)

    refused = bring_in(shop)

    assert list(refused) == [result.task_id]
    assert why in refused[result.task_id]
    assert not DeadLetter.objects.exists()


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ({"task_name": None}, celery_results.NAMELESS),
        ({"task_args": None}, celery_results.NO_ARGUMENTS),
        ({"task_kwargs": ""}, celery_results.NO_ARGUMENTS),
        ({"content_type": "application/x-python-serialize", "content_encoding": "binary"}, celery_results.PICKLED),
        ({"content_type": "application/of-our-own"}, celery_results.PICKLED),
        ({"task_args": '"42"'}, celery_results.UNREADABLE),
        ({"task_args": '"***"'}, celery_results.UNREADABLE),
        ({"task_kwargs": '"(1, 2)"'}, celery_results.UNREADABLE),
        ({"task_args": '"({1, 2},)"'}, celery_results.UNREADABLE),
    ],
)
def test_a_result_that_holds_no_message_is_refused_with_the_reason(shop, columns, why):
    fail(shop)
    results().update(**columns)

    assert list(bring_in(shop).values()) == [why]


@pytest.mark.parametrize(
    ("stored", "args"), [("(7, 'a')", [7, "a"]), ("[7]", [7]), ('[7, {"a": null}]', [7, {"a": None}])]
)
def test_arguments_that_other_releases_stored_are_read(shop, stored, args):
    fail(shop)
    results().update(task_args=stored)

    assert bring_in(shop) == {}
    assert DeadLetter.objects.get().envelope.payload()[0] == args


def test_an_exception_that_was_stored_as_a_pickle_is_taken_from_the_traceback(shop):
    fail(shop)
    columns = {"result": "gASVAAAA", "content_encoding": "utf-8"}
    results().update(**columns, traceback="Traceback\n  ...\nshop.errors.NoMoney: none\n")

    bring_in(shop)

    letter = DeadLetter.objects.get()
    assert (letter.exception_class, letter.exception_message) == ("shop.errors.NoMoney", "none")


def test_it_goes_where_the_apps_routes_lead(shop):
    fail(shop)
    shop.app.conf.task_routes = {"shop.*": {"queue": "slow"}}
    shop.app.amqp.__dict__.pop("router", None)
    shop.app.amqp.flush_routes()

    bring_in(shop)

    letter = DeadLetter.objects.get()
    assert (letter.queue, letter.exchange, letter.routing_key) == ("slow", "", "slow")


def test_a_task_that_is_not_registered_goes_to_the_default_queue(shop):
    fail(shop)
    results().update(task_name="gone.for_good")

    bring_in(shop)

    assert DeadLetter.objects.get().queue == shop.queue


def test_they_are_read_in_chunks(shop, monkeypatch):
    monkeypatch.setattr(celery_results, "CHUNK", 2)
    for _number in range(5):
        fail(shop)

    bring_in(shop)

    assert DeadLetter.objects.count() == 5


def test_a_project_without_them_is_told_how_to_get_them(shop, settings):
    settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_celery_results"]

    with pytest.raises(NoResultsError, match='add "django_celery_results"'):
        failures()
