"""The chords of django-celery-results: a member counts once, however often it is reported."""

import threading
import uuid
from copy import copy
from types import SimpleNamespace

import pytest
from celery import chord, group
from celery.app.task import Context
from django.apps import apps
from django.db import connections, transaction

pytest.importorskip("django_celery_results")

from django_taskkit.worker import chords

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def backend(tables_of_results, station):
    """The database as the result backend of the station."""
    station.app.conf.result_backend = "django-db"
    station.app.conf.result_chord_join_timeout = 1
    return station.app.backend


@pytest.fixture
def tasks(station):
    """What chords are made of here; ``called`` has what the error callback was called with."""
    called = []

    @station.app.task
    def number(value):
        return value

    @station.app.task
    def failing():
        raise LookupError("no such number")

    @station.app.task
    def total(values):
        return sum(values)

    @station.app.task
    def on_error(request, exc, traceback):
        called.append(exc)

    return SimpleNamespace(number=number, failing=failing, total=total, on_error=on_error, called=called)


@pytest.fixture
def stock(backend, monkeypatch):
    """django-celery-results without django_taskkit."""
    patched = type(backend).on_chord_part_return
    monkeypatch.setattr(type(backend), "on_chord_part_return", patched.__wrapped__)


def counters():
    return apps.get_model("django_celery_results", "ChordCounter").objects


def members(message_count, station):
    return [station.take() for _ in range(message_count)]


class TestAMemberThatIsDeliveredTwice:
    def send(self, station, tasks):
        """A chord of two whose first member has run twice, while the second has not."""
        result = chord([tasks.number.s(1), tasks.number.s(2)])(tasks.total.s())
        first, second = members(2, station)
        again = copy(first)
        station.run(first)
        station.run(again)
        return result, second

    def test_the_body_runs_once_when_all_have_ended(self, backend, station, tasks):
        result, second = self.send(station, tasks)
        assert station.waiting() == 0

        station.run(second)

        assert station.waiting() == 1
        station.run_all()
        assert result.get(timeout=1) == 3
        assert not counters().exists()

    def test_plain_django_celery_results_never_runs_the_body(self, stock, station, tasks):
        result, second = self.send(station, tasks)
        station.run(second)

        assert station.waiting() == 0
        assert result.state == "PENDING"

    def test_the_body_does_not_run_again_when_the_last_one_is_delivered_again(self, backend, station, tasks):
        result, second = self.send(station, tasks)
        again = copy(second)
        station.run(second)
        station.run_all()

        station.run(again)

        assert station.waiting() == 0
        assert result.get(timeout=1) == 3


class TestAMemberThatIsReportedTwice:
    """As a hard time limit is."""

    def send(self, station, tasks):
        """A chord of two whose first member has been reported twice, while the second is still running."""
        result = chord([tasks.number.s(1), tasks.number.s(2)])(tasks.total.s().on_error(tasks.on_error.s()))
        first, second = members(2, station)
        request = Context({**first.headers, **first.payload[2]})
        for _ in range(2):
            station.app.backend.mark_as_failure(request.id, TimeoutError("killed"), request=request)
        return result, request, second

    def test_the_body_fails_once_when_all_have_ended(self, backend, station, tasks):
        result, killed, second = self.send(station, tasks)
        assert (result.state, tasks.called) == ("PENDING", [])

        station.run(second)

        assert result.state == "FAILURE"
        assert f"Dependency {killed.id} raised TimeoutError('killed')" in str(result.result)
        assert [type(exc.__cause__) for exc in tasks.called] == [TimeoutError]
        assert station.waiting() == 0

    def test_plain_django_celery_results_tells_nobody(self, stock, station, tasks):
        result, _killed, second = self.send(station, tasks)
        station.run(second)

        assert (result.state, tasks.called) == ("PENDING", [])


def test_a_member_that_is_being_retried_has_not_ended(backend, station, tasks):
    @station.app.task(bind=True)
    def retried(self):
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return 10

    result = chord([retried.s(), tasks.number.s(1)])(tasks.total.s())
    first, second = members(2, station)
    again = copy(second)
    for message in (first, second, again):
        station.run(message)
    assert result.state == "PENDING"

    station.run_all()

    assert result.get(timeout=1) == 11


class TestAMemberThatIgnoresItsResult:
    def test_the_body_runs(self, backend, station, tasks):
        tasks.number.ignore_result = True
        result = chord([tasks.number.s(1), tasks.number.s(2)])(tasks.total.s())
        station.run_all()

        assert result.get(timeout=1) == 3

    def test_the_body_fails_if_the_member_does(self, backend, station, tasks):
        tasks.failing.ignore_result = True
        result = chord([tasks.failing.s(), tasks.number.s(2)])(tasks.total.s())
        station.run_all()

        assert result.state == "FAILURE"
        assert "no such number" in str(result.result)

    def test_plain_django_celery_results_never_runs_the_body(self, stock, station, tasks):
        tasks.number.ignore_result = True
        result = chord([tasks.number.s(1), tasks.number.s(2)])(tasks.total.s())
        station.run_all()

        assert result.state == "PENDING"


class TestHeadersOfEveryShape:
    def test_groups_and_chains_and_chords_in_a_header(self, backend, station, tasks):
        header = [
            group([tasks.number.s(1), tasks.number.s(2)]),
            tasks.number.s(3) | tasks.number.s(),
            chord([tasks.number.s(4), tasks.number.s(5)], tasks.total.s()),
        ]
        result = chord(header)(tasks.total.s())
        station.run_all()

        assert result.get(timeout=1) == 15
        assert not counters().exists()

    def test_a_chain_that_dies_before_its_end(self, backend, station, tasks):
        result = chord([tasks.failing.si() | tasks.number.si(1), tasks.number.s(2)])(tasks.total.s())
        station.run_all()

        assert result.state == "FAILURE"
        assert "no such number" in str(result.result)

    def test_a_member_that_is_replaced(self, backend, station, tasks):
        @station.app.task(bind=True)
        def replaced(self):
            return self.replace(tasks.number.si(7))

        result = chord([replaced.s(), tasks.number.s(2)])(tasks.total.s())
        station.run_all()

        assert result.get(timeout=1) == 9

    def test_a_group_as_the_body(self, backend, station, tasks):
        result = chord([tasks.number.s(1), tasks.number.s(2)])(group([tasks.total.s(), tasks.total.s()]))
        station.run_all()

        assert result.get(timeout=1) == [3, 3]

    def test_more_members_than_one_query_asks_for(self, backend, station, tasks, monkeypatch):
        monkeypatch.setattr(chords, "ASK_FOR", 2)
        result = chord([tasks.number.s(value) for value in range(5)])(tasks.total.s())
        station.run_all()

        assert result.get(timeout=1) == 10


def test_a_body_that_can_not_be_published_fails_and_tells_its_error_callback(backend, station, tasks):
    body = tasks.total.s().set(serializer="of another project").on_error(tasks.on_error.s())
    result = chord([tasks.number.s(1), tasks.number.s(2)])(body)
    station.run_all()

    assert result.state == "FAILURE"
    assert "Callback error" in str(result.result)
    assert len(tasks.called) == 1


def test_the_report_of_a_member_that_succeeds_takes_three_queries(backend, station, tasks, django_assert_num_queries):
    chord([tasks.number.s(1), tasks.number.s(2)])(tasks.total.s())
    first, _second = members(2, station)
    request = Context({**first.headers, **first.payload[2]})
    backend.store_result(request.id, 1, "SUCCESS")

    with transaction.atomic(), django_assert_num_queries(3 + 2):  # a savepoint is two
        backend.on_chord_part_return(request, "SUCCESS", 1)


def test_members_that_end_at_once_start_the_body_once(backend, station, tasks):
    """Each sees all the others' results, and one of them the counter."""
    result = chord([tasks.number.s(value) for value in range(6)])(tasks.total.s())
    requests = [Context({**message.headers, **message.payload[2]}) for message in members(6, station)]
    barrier = threading.Barrier(len(requests), timeout=30)
    failures = []

    def report(number, request):
        try:
            backend.store_result(request.id, number, "SUCCESS", request=request)
            barrier.wait()
            for _twice in range(2):
                backend.on_chord_part_return(request, "SUCCESS", number)
        except Exception as exc:
            failures.append(exc)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=report, args=pair) for pair in enumerate(requests)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not failures
    assert station.waiting() == 1
    station.run_all()
    assert result.get(timeout=1) == 15


def test_it_is_put_in_place_once(backend):
    before = type(backend).on_chord_part_return

    chords.install()

    assert type(backend).on_chord_part_return is before


def test_a_project_without_django_celery_results_needs_nothing(monkeypatch):
    monkeypatch.setattr(chords.apps, "is_installed", lambda name: False)

    chords.install()


def test_a_late_report_of_an_unknown_chord_is_ignored(backend, tasks):
    request = Context({"id": str(uuid.uuid4()), "group": str(uuid.uuid4()), "task": "x"})

    backend.on_chord_part_return(request, "SUCCESS", 1)

    assert not counters().exists()
