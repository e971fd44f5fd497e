"""What a run makes of a result."""

import logging
from socket import gethostname

import pytest
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter, DjangoTaskResult
from django_taskkit.testing import inline_worker

interface = pytest.importorskip("django_taskkit.backends.interface", exc_type=ImportError)

from django_taskkit.backends.backend import CeleryBackend  # noqa: E402 (skipped where there are no tasks)

pytestmark = pytest.mark.django_db(transaction=True)


def refreshed(result):
    result.refresh()
    return result


def deliver_again(station, result):
    """As a broker that has not heard of the acknowledgement."""
    station.app.tasks[result.task.module_path].apply_async(result.args, result.kwargs, task_id=result.id)


class TestASuccess:
    def test_is_told_by_the_result(self, station, shop):
        result = shop.add.enqueue(1, 2)
        before = timezone.now()

        station.run_all()

        refreshed(result)
        assert result.status == interface.TaskResultStatus.SUCCESSFUL
        assert (result.return_value, result.attempts, result.errors) == (3, 1, [])
        assert result.worker_ids == [gethostname()]
        assert before <= result.started_at == result.last_attempted_at <= result.finished_at
        assert shop.add.get_result(result.id) == result
        assert not DeadLetter.objects.exists()

    def test_is_announced_once_and_in_order(self, station, shop, announced):
        shop.add.enqueue(1)
        station.run_all()

        assert announced == [
            ("enqueued", "READY", CeleryBackend),
            ("started", "RUNNING", CeleryBackend),
            ("finished", "SUCCESSFUL", CeleryBackend),
        ]

    def test_of_a_coroutine(self, station, shop):
        result = shop.fetch.enqueue("/")
        station.run_all()

        assert refreshed(result).return_value == "fetched /"

    def test_of_a_task_that_takes_the_context(self, station, shop):
        result = shop.attempt.enqueue("me")
        station.run_all()

        assert refreshed(result).return_value == ["me", 1, result.id, "RUNNING"]

    def test_a_receiver_that_raises_harms_nobody(self, station, shop):
        def break_down(**kwargs):
            raise RuntimeError("a receiver")

        interface.task_started.connect(break_down)
        try:
            result = shop.add.enqueue(1)
            station.run_all()
        finally:
            interface.task_started.disconnect(break_down)

        assert refreshed(result).return_value == 1

    def test_whose_message_is_delivered_once_more_is_not_run_again(self, station, shop, announced):
        result = shop.add.enqueue(1)
        station.run_all()
        del announced[:]

        deliver_again(station, result)

        assert station.run_all() == 1
        assert shop.ran == [(1,)]
        assert refreshed(result).attempts == 1
        assert announced == []
        assert not DeadLetter.objects.exists()

    def test_of_a_value_that_is_no_json_is_a_failure_that_is_known_to_have_run(self, station, shop, announced):
        result = shop.unserialisable.enqueue()
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.body_ran) == ("result_lost", True)
        assert refreshed(result).status == interface.TaskResultStatus.FAILED
        assert result.errors[0].exception_class is TypeError
        assert [name for name, *_ in announced] == ["enqueued", "started", "finished"]


class TestAFailure:
    def test_is_a_dead_letter_of_the_same_id(self, station, shop, announced):
        result = shop.run_out.enqueue()
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.task_id, letter.task_name, letter.status) == (result.id, "tests.backends.shop.run_out", "dead")
        refreshed(result)
        assert (result.status, result.attempts) == (interface.TaskResultStatus.FAILED, 1)
        assert result.finished_at is not None
        (error,) = result.errors
        assert error.exception_class is shop.OutOfStockError
        assert "none left" in error.traceback
        assert "shop.py" in error.traceback
        with pytest.raises(ValueError, match="failed"):
            result.return_value  # noqa: B018
        assert [(name, status) for name, status, _sender in announced] == [
            ("enqueued", "READY"),
            ("started", "RUNNING"),
            ("finished", "FAILED"),
        ]

    def test_of_python_s_own_kind_has_a_path_that_can_be_imported(self, station, shop, tmp_path):
        result = shop.fail_while.enqueue(str(tmp_path))
        station.run_all()

        assert refreshed(result).errors[0].exception_class is ValueError

    def test_by_arguments_that_do_not_fit_is_one_of_the_run(self, station, shop):
        result = shop.fetch.enqueue()
        station.run_all()

        assert refreshed(result).errors[0].exception_class is TypeError

    def test_that_is_requeued_is_ready_and_then_successful(self, station, shop, announced, tmp_path):
        flag = tmp_path / "flag"
        flag.touch()
        result = shop.fail_while.enqueue(str(flag))
        station.run_all()
        flag.unlink()
        del announced[:]

        requeue(DeadLetter.objects.all(), by=User(username="ann"))

        assert refreshed(result).status == interface.TaskResultStatus.READY
        assert result.finished_at is None
        station.run_all()
        refreshed(result)
        assert (result.status, result.return_value) == (interface.TaskResultStatus.SUCCESSFUL, "done")
        assert (result.attempts, len(result.errors)) == (2, 1)
        assert DeadLetter.objects.get().status == "recovered"
        assert [(name, status) for name, status, _sender in announced] == [
            ("started", "RUNNING"),
            ("finished", "SUCCESSFUL"),
        ]

    def test_that_is_requeued_and_fails_again_has_both_errors(self, station, shop, tmp_path):
        result = shop.fail_while.enqueue(str(tmp_path))
        station.run_all()
        requeue(DeadLetter.objects.all())
        station.run_all()

        refreshed(result)
        assert (result.status, result.attempts) == (interface.TaskResultStatus.FAILED, 2)
        assert len(result.errors) == 2
        assert DeadLetter.objects.get().status == "dead"

    def test_by_the_hard_time_limit_is_told_by_the_worker(self, station, shop, announced):
        result = shop.add.enqueue()
        request = station.request(station.take())
        request.execute_using_pool(station.pool)
        job = station.pool.jobs.pop().accept()

        job.exceed_hard_limit()

        assert refreshed(result).errors[0].exception_class.__name__ == "TimeLimitExceeded"
        assert announced[-1][:2] == ("finished", "FAILED")
        assert DeadLetter.objects.get().reason == "time_limit"

    def test_without_a_dead_letter_is_told_too(self, station, shop, announced):
        shop.run_out.enqueue()
        station.app.tasks["tests.backends.shop.run_out"].dead_letter = False
        station.run_all()

        assert not DeadLetter.objects.exists()
        assert DjangoTaskResult.objects.get().status == "FAILED"
        assert announced[-1][:2] == ("finished", "FAILED")

    def test_of_a_run_that_goes_on_after_its_requeue_does_not_count(self, station, shop, announced):
        result = shop.take_long.enqueue()
        request = station.request(station.take())
        request.execute_using_pool(station.pool)
        job = station.pool.jobs.pop().accept()
        shop.meanwhile[:] = [lambda: requeue(DeadLetter.objects.all()), job.exceed_hard_limit]

        job.target(*job.args)

        assert refreshed(result).status == interface.TaskResultStatus.READY
        assert [(name, status) for name, status, _sender in announced][2:] == [("finished", "FAILED")]
        station.run_all()
        assert (refreshed(result).return_value, result.attempts) == ("long", 2)

    def test_whose_old_message_is_delivered_once_more_waits_for_the_new_one(self, station, shop, tmp_path):
        flag = tmp_path / "flag"
        flag.touch()
        result = shop.fail_while.enqueue(str(flag))
        station.run_all()
        deliver_again(station, result)
        requeue(DeadLetter.objects.all())
        flag.unlink()

        station.run_next()
        assert (refreshed(result).status, result.attempts) == (interface.TaskResultStatus.READY, 1)
        station.run_next()
        assert (refreshed(result).return_value, result.attempts) == ("done", 2)
        assert DeadLetter.objects.get().status == "recovered"


class TestAnotherTry:
    def test_that_the_function_asks_for_is_ready_meanwhile(self, shop, announced):
        with inline_worker() as worker:
            result = shop.retry_once.enqueue()
            worker.run()

            refreshed(result)
            assert (result.status, result.attempts, len(result.errors)) == (interface.TaskResultStatus.READY, 1, 1)
            worker.advance_retries()

        refreshed(result)
        assert (result.return_value, result.attempts, len(result.errors)) == (2, 2, 1)
        assert result.started_at < result.last_attempted_at
        assert [name for name, *_ in announced] == ["enqueued", "started", "started", "finished"]

    def test_that_was_put_off_is_no_error(self, shop):
        with inline_worker() as worker:
            result = shop.snooze_once.enqueue()
            worker.advance_retries()

        assert (refreshed(result).return_value, result.errors) == (2, [])

    def test_is_what_task_annotations_say_by_the_task_s_own_name(self, station, shop, tmp_path):
        station.app.conf.task_annotations = {
            "tests.backends.shop.fail_while": {"autoretry_for": (ValueError,), "max_retries": 1}
        }
        flag = tmp_path / "flag"
        flag.touch()
        with inline_worker() as worker:
            result = shop.fail_while.enqueue(str(flag))
            worker.run()
            assert refreshed(result).status == interface.TaskResultStatus.READY
            flag.unlink()
            worker.advance_retries()

        assert (refreshed(result).return_value, len(result.errors)) == ("done", 1)


class TestInATestOfAProject:
    @pytest.mark.django_db
    def test_an_inline_worker_runs_what_was_enqueued(self, shop):
        with inline_worker() as worker:
            result = shop.add.enqueue(1, 2)
            worker.run()

        assert refreshed(result).return_value == 3

    @pytest.mark.django_db
    def test_a_transaction_of_the_code_under_test_counts(self, shop, django_capture_on_commit_callbacks):
        with inline_worker() as worker:
            with django_capture_on_commit_callbacks(execute=True), transaction.atomic():
                result = shop.add.enqueue(1, 2)
                assert worker.run() == []
            worker.run()

        assert refreshed(result).return_value == 3


class TestWithoutEnqueue:
    def test_a_message_that_beat_sent_by_name_gets_a_result(self, station, shop):
        shop.add.enqueue()  # known to this app
        station.run_all()

        sent = station.app.send_task("tests.backends.shop.add", (2, 3))
        station.run_all()

        assert shop.add.get_result(sent.id).return_value == 5

    def test_the_function_can_be_called(self, shop):
        assert shop.add.call(1, 2) == 3

    def test_celery_s_task_can_be_called(self, station, shop):
        shop.attempt.enqueue("")

        name, attempt, _id, _status = station.app.tasks["tests.backends.shop.attempt"]("me")

        assert (name, attempt) == ("me", 1)


class TestEagerly:
    @pytest.fixture(autouse=True)
    def eager(self, station):
        station.app.conf.task_always_eager = True

    def test_the_result_is_there_at_once(self, shop, announced):
        assert shop.add.enqueue(1, 2).return_value == 3
        assert [name for name, *_ in announced] == ["enqueued", "started", "finished"]

    def test_a_failure_is_a_result(self, shop, announced):
        result = shop.run_out.enqueue()

        assert result.errors[0].exception_class is shop.OutOfStockError
        assert [name for name, *_ in announced] == ["enqueued", "started", "finished"]

    def test_a_failure_that_propagates_is_a_result_too(self, station, shop, announced):
        station.app.conf.task_eager_propagates = True
        with pytest.raises(shop.OutOfStockError):
            shop.run_out.enqueue()

        assert DjangoTaskResult.objects.get().status == "FAILED"
        assert [name for name, *_ in announced] == ["enqueued", "started", "finished"]


def test_django_s_own_log_names_the_task(station, shop, caplog):
    with caplog.at_level(logging.INFO):
        shop.run_out.enqueue()
        station.run_all()

    assert "path=tests.backends.shop.run_out state=FAILED" in caplog.text
