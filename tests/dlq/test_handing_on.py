"""A held task that is discarded fails then: its result, its chord, its chain and its error callbacks."""

from typing import ClassVar

import pytest
from celery import chain, chord, group
from celery.backends.cache import CacheBackend
from celery.result import AsyncResult

from django_taskkit.dlq import discard, requeue
from django_taskkit.dlq.handing_on import HandingOnError, exception_of, hand_on
from django_taskkit.dlq.models import Reason
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db


class OrderError(Exception):
    pass


@pytest.fixture
def tasks(station):
    """Tasks on the in-memory broker; ``tasks.notes`` is what ran."""

    class Tasks:
        notes: ClassVar[list] = []
        error = None

    @station.app.task(name="number")
    def number(value):
        return value

    @station.app.task(name="fails", hold=True)
    def fails(*args):
        if Tasks.error is not None:
            raise Tasks.error
        return 1

    @station.app.task(name="called")
    def called(request, exc, traceback):
        Tasks.notes.append(("called", request.id, repr(exc)))

    @station.app.task(name="sent")
    def sent(task_id):
        Tasks.notes.append(("sent", task_id))

    @station.app.task(name="total")
    def total(values):
        Tasks.notes.append(("total", sum(values)))
        return sum(values)

    Tasks.notes, Tasks.error = [], OrderError("no 7")
    Tasks.number, Tasks.fails, Tasks.called, Tasks.sent, Tasks.total = number, fails, called, sent, total
    return Tasks


def held():
    return DeadLetter.objects.get(status="held")


def state_of(task_id, station):
    return AsyncResult(str(task_id), app=station.app).state


class TestAMemberOfAGroup:
    @pytest.fixture
    def result(self, station, tasks):
        member = tasks.fails.s(7)
        member.link_error(tasks.called.s())
        member.link_error(tasks.sent.s())
        result = group([member, tasks.number.s(1)]).apply_async()
        station.run_all()
        return result

    def test_waits_until_then(self, result, tasks):
        assert [member.state for member in result.results] == ["HELD", "SUCCESS"]
        assert not result.ready()
        assert tasks.notes == []

    def test_fails_with_its_own_exception_and_traceback(self, result, station):
        assert discard(held(), app=station.app).discarded == 1

        dead = result.results[0]
        assert dead.state == "FAILURE"
        assert type(dead.result) is OrderError
        assert str(dead.result) == "no 7"
        assert "in fails" in dead.traceback
        assert result.failed()

    def test_calls_its_error_callbacks_once(self, result, station, tasks):
        row = held()

        discard(row, app=station.app)
        discard(row, app=station.app)
        station.run_all()

        task_id = row.task_id
        assert tasks.notes == [("called", task_id, "OrderError('no 7')"), ("sent", task_id)]

    def test_runs_when_it_is_requeued_instead(self, result, station, tasks):
        tasks.error = None

        assert requeue(held(), app=station.app).requeued == 1
        station.run_all()

        assert result.join(timeout=1) == [1, 1]
        assert DeadLetter.objects.get().status == "recovered"
        assert tasks.notes == []


def test_what_follows_in_the_chain_fails_too(station, tasks):
    result = group([chain(tasks.fails.s(7), tasks.number.s(), tasks.number.s()), tasks.number.s(1)]).apply_async()
    station.run_all()
    last = result.results[0]
    assert (last.state, last.parent.state, last.parent.parent.state) == ("PENDING", "PENDING", "HELD")

    discard(held(), app=station.app)

    assert (last.state, last.parent.state, last.parent.parent.state) == ("FAILURE",) * 3


def test_the_body_of_its_chord_fails_in_a_database_of_results(tables_of_results, station, tasks):
    station.app.conf.result_backend = "django-db"
    station.app.__dict__.pop("backend", None)
    station.app._local.__dict__.pop("backend", None)
    body = tasks.total.s().on_error(tasks.called.s())
    result = chord([tasks.fails.s(7), tasks.number.s(1)])(body)
    station.run_all()
    row = held()
    assert (state_of(row.task_id, station), result.state) == ("HELD", "PENDING")

    discard(row, app=station.app)

    assert (state_of(row.task_id, station), result.state) == ("FAILURE", "FAILURE")
    assert [note[:2] for note in tasks.notes] == [("called", result.id)]


def test_what_an_ignored_result_said_is_still_nothing(station, tasks):
    result = group([tasks.fails.s(7).set(ignore_result=True), tasks.number.s(1)]).apply_async()
    station.run_all()
    assert state_of(result.results[0].id, station) == "PENDING"

    discard(held(), app=station.app)

    assert state_of(result.results[0].id, station) == "PENDING"


class TestAFailureThatCantBeHandedOn:
    def test_of_a_pickled_body_which_is_never_unpickled(self, station, tasks):
        group([tasks.fails.s(7).set(serializer="pickle"), tasks.number.s(1)]).apply_async()
        station.run_all()
        row = held()

        with pytest.raises(HandingOnError, match="application/x-python-serialize.*could run code.*Requeue it instead"):
            hand_on(row, app=station.app)
        report = discard(row, app=station.app)

        assert (report.discarded, len(report.refused)) == (0, 1)
        assert "could run code" in report.refused[0].reason
        assert held() == row

    def test_of_a_body_that_cant_be_read(self, station, tasks):
        group([tasks.fails.s(7), tasks.number.s(1)]).apply_async()
        station.run_all()
        row = held()
        row.body = b"{"

        with pytest.raises(HandingOnError, match="the body, which can't be read"):
            hand_on(row, app=station.app)

    def test_to_a_result_backend_that_is_down(self, station, tasks):
        class Down(CacheBackend):
            def store_result(self, *args, **kwargs):
                raise ConnectionError("gone")

        result = group([tasks.fails.s(7), tasks.number.s(1)]).apply_async()
        station.run_all()
        working, tasks.fails.backend = tasks.fails.backend, Down(app=station.app, url="memory://")

        report = discard(held(), app=station.app)

        assert report.discarded == 0
        assert "ConnectionError: gone" in report.refused[0].reason
        tasks.fails.backend = working
        assert discard(held(), app=station.app).discarded == 1
        assert result.results[0].state == "FAILURE"

    def test_from_a_process_that_cant_import_the_tasks(self, station, tasks):
        group([tasks.fails.s(7), tasks.number.s(1)]).apply_async()
        station.run_all()
        station.app.loader.builtin_modules = {"no_such_module"}

        with pytest.raises(HandingOnError, match="tasks can't be imported .*no_such_module"):
            hand_on(held(), app=station.app)


@pytest.mark.parametrize(
    ("stored", "module", "name"),
    [
        ("ValueError", "builtins", "ValueError"),
        ("orders.errors.NoStock", "orders.errors", "NoStock"),
        ("", "builtins", "Exception"),
    ],
)
def test_the_exception_has_the_name_and_the_message_that_were_stored(stored, module, name):
    exc = exception_of(DeadLetter(exception_class=stored, exception_message="no 7", reason=Reason.EXCEPTION))

    assert (type(exc).__module__, type(exc).__name__, str(exc)) == (module, name, "no 7")
