"""Deaths that the worker records from the message as it came, whatever is odd about it."""

import pytest
from celery.exceptions import WorkerLostError
from django.db import connections, router

from django_taskkit.dlq.models import Reason
from django_taskkit.models import DeadLetter
from django_taskkit.worker.outside import record_message, record_request

pytestmark = pytest.mark.django_db


@pytest.fixture
def request_(station):
    """A task that a worker has received."""

    @station.app.task(name="the.task")
    def run(*args):
        return None

    def receive(**options):
        run.apply_async((7,), **options)
        return station.request(station.take(), hostname="worker@here")

    return receive


class TestAMessageThatHadBecomeATask:
    def test_is_kept_as_it_came(self, station, request_):
        received = request_(headers={"tenant": "t1"}, priority=4)

        assert record_request(received, Reason.WORKER_LOST, WorkerLostError("gone"))

        letter = DeadLetter.objects.get()
        assert bytes(letter.body) == received.message.body
        assert letter.headers == received.message.headers
        assert (letter.properties["priority"], letter.queue) == (4, station.queue)
        assert (letter.reason, letter.worker, letter.task_name) == ("worker_lost", "worker@here", "the.task")
        assert letter.exception_message == "gone"

    def test_that_is_gone_before_it_was_announced_as_well(self, station, request_):
        received = request_()
        del received.request_dict["taskkit_message"]

        assert record_request(received, Reason.EXPIRED, WorkerLostError("late"))

        letter = DeadLetter.objects.get()
        assert bytes(letter.body) == received.message.body
        assert letter.queue == station.queue

    def test_has_the_traceback_of_the_process_that_ran_it(self, request_, settings):
        record_request(request_(), Reason.WORKER_LOST, WorkerLostError("gone"), "Traceback: \x00 line 1\n")

        traceback = DeadLetter.objects.get().traceback
        assert traceback.startswith("Traceback: ")
        assert "\x00" not in traceback

    def test_has_a_traceback_of_bounded_length(self, request_, settings):
        settings.TASKKIT = {"TRACEBACK_MAX_LENGTH": 1000}

        record_request(request_(), Reason.WORKER_LOST, WorkerLostError("gone"), "line\n" * 1000)

        assert len(DeadLetter.objects.get().traceback) < 1_100  # and a note of how much is missing

    def test_is_not_recorded_if_its_task_asks_for_that(self, request_, settings):
        settings.TASKKIT = {"CAPTURE": "opt_in"}

        assert not record_request(request_(), Reason.WORKER_LOST, WorkerLostError("gone"))
        assert not DeadLetter.objects.exists()

    def test_that_can_not_be_described_is_said_in_the_log(self, request_, caplog, monkeypatch):
        received = request_()
        received.request_dict["taskkit_message"] = ("too", "short")

        assert not record_request(received, Reason.WORKER_LOST, WorkerLostError("gone"))
        assert f"task the.task[{received.id}] died (worker_lost) and could not be captured" in caplog.text

    def test_with_settings_that_make_no_sense_is_said_in_the_log(self, request_, caplog, settings):
        received = request_()
        settings.TASKKIT = {"CAPTURE": "sometimes"}

        assert not record_request(received, Reason.WORKER_LOST, WorkerLostError("gone"))
        assert "could not be captured" in caplog.text


class TestAMessageThatNeverBecameOne:
    def test_is_kept_as_it_came(self, station, request_):
        message = request_().message

        assert record_message(station.app, message, Reason.UNREGISTERED, KeyError("the.task"), "worker@here")

        letter = DeadLetter.objects.get()
        assert (bytes(letter.body), letter.headers) == (message.body, message.headers)
        assert (letter.reason, letter.worker, letter.queue) == ("unregistered", "worker@here", station.queue)

    def test_that_can_not_be_described_is_said_in_the_log(self, station, caplog):
        assert not record_message(station.app, object(), Reason.INVALID, ValueError("odd"), "worker@here")
        assert "could not be captured" in caplog.text


class TestTheConnection:
    @pytest.mark.django_db(transaction=True)
    def test_is_not_kept_by_the_worker(self, request_):
        received = request_()
        connections["default"].ensure_connection()

        record_request(received, Reason.WORKER_LOST, WorkerLostError("gone"))

        assert connections["default"].connection is None
        assert DeadLetter.objects.exists()

    def test_of_somebodys_transaction_is_left_alone(self, request_):
        record_request(request_(), Reason.WORKER_LOST, WorkerLostError("gone"))

        assert connections["default"].connection is not None
        assert DeadLetter.objects.exists()

    def test_that_can_not_be_had_is_no_error(self, request_, monkeypatch, settings, tmp_path):
        """The death waits in the spool, then."""
        settings.TASKKIT = {"SPOOL_QUEUE": "", "SPOOL_DIR": str(tmp_path / "spool")}
        received = request_()
        with monkeypatch.context() as patch:
            patch.setattr(router, "db_for_write", lambda model, **hints: "no-such-database")
            recorded = record_request(received, Reason.WORKER_LOST, WorkerLostError("gone"))

        assert recorded
        assert not DeadLetter.objects.exists()
        assert list((tmp_path / "spool").iterdir())
