"""What waits for a task that was revoked, or expired, is told of it."""

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from celery import chain, chord
from celery.worker import state as worker_state

from django_taskkit.models import DeadLetter
from django_taskkit.worker import requests

pytest.importorskip("django_celery_results")

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = datetime(2020, 1, 1, tzinfo=timezone.utc)


@pytest.fixture
def tasks(tables_of_results, station):
    """What workflows are made of here; ``called`` has what the chord's error callback was called with."""
    station.app.conf.result_backend = "django-db"
    station.app.conf.result_chord_join_timeout = 1
    called, own = [], []

    @station.app.task
    def number(value):
        return value

    @station.app.task
    def total(values):
        return sum(values)

    @station.app.task
    def on_error(request, exc, traceback):
        called.append(exc)

    @station.app.task
    def on_own_error(request, exc, traceback):
        own.append(exc)

    return SimpleNamespace(
        number=number, total=total, on_error=on_error, on_own_error=on_own_error, called=called, own=own
    )


@pytest.fixture(params=["expired", "revoked"])
def ended(request):
    """Let a message end before it runs."""

    def end(message):
        if request.param == "revoked":
            worker_state.revoked.add(message.headers["id"])
        else:
            message.headers["expires"] = LONG_AGO.isoformat()
        return request.param

    return end


@pytest.fixture
def forgetful(monkeypatch):
    """A worker that tells nobody more than Celery does."""
    monkeypatch.setattr(requests, "end_chain", lambda request, reason: None)


class TestAChainInAChord:
    def run(self, station, tasks, end):
        step = tasks.number.s(2).on_error(tasks.on_own_error.s())
        header = [tasks.number.s(1), chain(step, tasks.number.s(), tasks.number.s())]
        result = chord(header)(tasks.total.s().on_error(tasks.on_error.s()))
        first = station.take()
        reason = end(second := station.take())
        station.run(second)
        station.run(first)
        station.run_all()
        return result, second, reason

    def test_fails_the_body_when_its_first_step_ends(self, station, tasks, ended):
        result, message, reason = self.run(station, tasks, ended)

        assert result.state == "FAILURE"
        assert f"raised TaskRevokedError('{reason}')" in str(result.result)
        assert [type(exc).__name__ for exc in tasks.called] == ["ChordError"]
        assert DeadLetter.objects.get().task_id == message.headers["id"]

    def test_ends_each_of_its_steps(self, station, tasks, ended):
        result, _message, _reason = self.run(station, tasks, ended)

        last = result.parent.results[1]
        assert [last.state, last.parent.state, last.parent.parent.state] == ["REVOKED"] * 3

    def test_calls_no_error_callback_of_a_revoked_task(self, station, tasks, ended):
        self.run(station, tasks, ended)

        assert tasks.own == []

    def test_waits_for_ever_in_plain_celery(self, station, tasks, ended, forgetful):
        result, _message, _reason = self.run(station, tasks, ended)

        assert (result.state, tasks.called) == ("PENDING", [])


def test_a_member_of_a_chord_counts_once(station, tasks, ended):
    result = chord([tasks.number.s(1), tasks.number.s(2), tasks.number.s(3)])(tasks.total.s())
    first = station.take()
    ended(first)
    station.run(first)
    second = station.take()
    station.run(second)
    assert result.state == "PENDING"

    station.run_all()

    assert result.state == "FAILURE"


def test_a_chain_of_its_own_ends(station, tasks, ended):
    result = chain(tasks.number.s(1), tasks.number.s()).apply_async()
    message = station.take()
    ended(message)

    station.run(message)

    assert (result.state, result.parent.state) == ("REVOKED", "REVOKED")
    assert message.acknowledged


def test_a_task_that_ignores_its_result_ends_its_chord_all_the_same(station, tasks, ended):
    tasks.number.ignore_result = True
    header = [tasks.number.s(1), chain(tasks.number.s(2), tasks.number.s())]
    result = chord(header)(tasks.total.s())
    first, second = station.take(), station.take()
    ended(second)

    station.run(second)
    station.run(first)

    assert result.state == "FAILURE"


def test_with_the_result_backend_down_the_message_ends(station, tasks, ended, monkeypatch, caplog):
    def down(*args, **kwargs):
        raise ConnectionError("the result backend is down")

    chain(tasks.number.s(1), tasks.number.s()).apply_async()
    message = station.take()
    ended(message)
    monkeypatch.setattr(type(station.app.backend), "store_result", down)

    step = station.run(message)

    assert DeadLetter.objects.get().task_id == message.headers["id"]
    assert message.acknowledged
    assert step.request.id not in worker_state.requests
    assert "its chain could not be told" in caplog.text


def test_what_runs_later_than_it_was_sent_is_no_concern(station, tasks):
    result = chain(tasks.number.s(1), tasks.number.s()).apply_async(expires=timedelta(days=1).total_seconds())
    station.run_all()

    assert result.get(timeout=1) == 1
