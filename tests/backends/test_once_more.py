"""What becomes of a result whose message is there once more: delivered twice, requeued, edited, or answered for."""

import pytest
from celery.exceptions import Ignore, Reject

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter, DjangoTaskResult
from django_taskkit.testing import inline_worker

interface = pytest.importorskip("django_taskkit.backends.interface", exc_type=ImportError)

from django_taskkit.backends import announcements, rows  # noqa: E402 (skipped where there are no tasks)
from django_taskkit.backends.backend import CeleryBackend  # noqa: E402

pytestmark = pytest.mark.django_db(transaction=True)


def refreshed(result):
    result.refresh()
    return result


def told(announced):
    return [(name, status) for name, status, _sender in announced]


class KilledError(BaseException):
    """Stands for a process that is gone: nothing that follows in it happens."""


class TestOfARunThatWasKilledOnceItsSuccessWasNoted:
    def test_closes_the_letter_and_is_not_run_again(self, station, shop, monkeypatch, announced, tmp_path):
        flag = tmp_path / "flag"
        flag.touch()
        result = shop.fail_while.enqueue(str(flag))
        station.run_all()
        flag.unlink()
        requeue(DeadLetter.objects.all())
        message = station.take()
        station.request(message).execute_using_pool(station.pool)
        job = station.pool.jobs.pop().accept()
        with monkeypatch.context() as patch:
            patch.setattr(announcements, "finished", raiser(KilledError()))
            with pytest.raises(KilledError):
                job.target(*job.args)
        del shop.ran[:], announced[:]
        assert (refreshed(result).return_value, DeadLetter.objects.get().status) == ("done", "requeued")

        message.requeue()  # as the broker does
        assert station.run_all() == 1

        assert DeadLetter.objects.get().status == "recovered"
        assert (refreshed(result).return_value, result.attempts) == ("done", 2)
        assert (shop.ran, announced) == ([], [])


class TestWhoseOtherRunHasSucceeded:
    @pytest.fixture
    def failed_late(self, station, shop):
        """A result whose message was delivered twice: one run has succeeded, and this one fails after it."""
        result = shop.take_long.enqueue()

        def fail_late():
            rows.succeed(rows.read(result.id), 0, "of the other run")
            raise ValueError("too late")

        shop.meanwhile[:] = [fail_late]
        station.run_all()
        return result

    def test_is_successful_and_a_letter_tells_of_the_failure(self, failed_late):
        assert refreshed(failed_late).return_value == "of the other run"
        assert DeadLetter.objects.get().status == "dead"

    def test_stays_successful_and_is_not_run_again_when_the_letter_is_requeued(self, station, shop, failed_late):
        shop.meanwhile[:] = [lambda: pytest.fail("it has run")]
        try:
            requeue(DeadLetter.objects.all())
            assert refreshed(failed_late).return_value == "of the other run"

            station.run_all()
        finally:
            shop.meanwhile.clear()

        assert DeadLetter.objects.get().status == "recovered"
        assert (refreshed(failed_late).return_value, failed_late.attempts) == ("of the other run", 1)


class TestWhoseIdempotencyKeyIsAnswered:
    @pytest.fixture(autouse=True)
    def key(self, station):
        station.app.conf.task_annotations = {"tests.backends.shop.add": {"idempotency_key": ("numbers",)}}

    def test_has_the_answer_as_its_result(self, shop, announced):
        with inline_worker() as worker:
            first, duplicate = shop.add.enqueue(1, 2), shop.add.enqueue(1, 2)
            worker.run()

        assert shop.ran == [(1, 2)]
        assert (refreshed(first).return_value, refreshed(duplicate).return_value) == (3, 3)
        assert (duplicate.attempts, duplicate.errors) == (1, [])
        assert told(announced)[2:] == [("started", "RUNNING"), ("finished", "SUCCESSFUL")] * 2


class TestOfAnAliasThatIsGone:
    @pytest.fixture
    def orphan(self, shop):
        result = shop.add.enqueue(1)
        DjangoTaskResult.objects.update(backend="renamed")
        return result

    def test_is_run_and_told_all_the_same(self, station, shop, orphan, announced):
        station.run_all()

        assert shop.ran == [(1,)]
        assert DjangoTaskResult.objects.get().status == "SUCCESSFUL"
        assert announced == [("started", "RUNNING", CeleryBackend), ("finished", "SUCCESSFUL", CeleryBackend)]
        assert not DeadLetter.objects.exists()

    def test_fails_and_is_requeued_as_any_other(self, station, shop, tmp_path):
        flag = tmp_path / "flag"
        flag.touch()
        shop.fail_while.enqueue(str(flag))
        DjangoTaskResult.objects.update(backend="renamed")
        station.run_all()
        assert DjangoTaskResult.objects.get().errors[0]["exception_class_path"] == "builtins.ValueError"
        flag.unlink()

        requeue(DeadLetter.objects.all())
        station.run_all()

        assert DjangoTaskResult.objects.get().status == "SUCCESSFUL"


class TestByARetryWithoutDelay:
    @pytest.fixture
    def overtaken(self, station, shop, monkeypatch, tmp_path):
        """``overtaken(fails)``: the next run is over before this one has noted its error."""
        station.app.conf.task_annotations = {
            "tests.backends.shop.fail_while": {
                "autoretry_for": (ValueError,),
                "max_retries": 1,
                "retry_backoff": False,
                "default_retry_delay": 0,
            }
        }

        def run(*, fails):
            flag = tmp_path / "flag"
            flag.touch()
            result = shop.fail_while.enqueue(str(flag))
            note = rows.run_again

            def note_late(row, error):
                monkeypatch.setattr(rows, "run_again", note)
                if not fails:
                    flag.unlink()
                station.run_next()
                note(row, error)

            monkeypatch.setattr(rows, "run_again", note_late)
            station.run_all()
            return refreshed(result)

        return run

    def test_keeps_the_error_of_the_run_before(self, overtaken):
        result = overtaken(fails=False)

        assert (result.return_value, result.attempts, len(result.errors)) == ("done", 2, 1)

    def test_has_the_last_error_last(self, overtaken):
        result = overtaken(fails=True)

        assert (result.status, result.attempts) == (interface.TaskResultStatus.FAILED, 2)
        retried, last = result.errors
        assert "fail_while" in retried.traceback
        assert DeadLetter.objects.get().traceback == last.traceback


class TestWithOtherArguments:
    def test_has_those_that_it_was_run_with(self, station, shop):
        result = shop.attempt.enqueue("me")
        station.take().ack()

        station.app.tasks["tests.backends.shop.attempt"].apply_async((), {"name": "you"}, task_id=result.id)
        station.run_all()

        found = shop.attempt.get_result(result.id)  # refresh() takes the arguments for what they were
        assert found.return_value[0] == "you"
        assert (found.args, found.kwargs) == ([], {"name": "you"})


class TestOfAFunctionThatRaises:
    def test_ignore_is_successful_without_a_value(self, station, shop, announced):
        result = shop.take_long.enqueue()
        shop.meanwhile[:] = [raiser(Ignore())]

        station.run_all()

        assert refreshed(result).return_value is None
        assert told(announced)[1:] == [("started", "RUNNING"), ("finished", "SUCCESSFUL")]
        assert not DeadLetter.objects.exists()

    def test_ignore_after_a_requeue_closes_the_letter(self, station, shop):
        result = shop.take_long.enqueue()
        shop.meanwhile[:] = [raiser(ValueError())]
        station.run_all()
        requeue(DeadLetter.objects.all())
        shop.meanwhile[:] = [raiser(Ignore())]

        station.run_all()

        assert refreshed(result).status == interface.TaskResultStatus.SUCCESSFUL
        assert DeadLetter.objects.get().status == "recovered"

    def test_reject_is_a_failure(self, station, shop):
        result = shop.take_long.enqueue()
        shop.meanwhile[:] = [raiser(Reject("no"))]

        station.run_all()

        assert refreshed(result).status == interface.TaskResultStatus.FAILED
        assert DeadLetter.objects.get().reason == "rejected"


def raiser(exc):
    def raise_it(*args):
        raise exc

    return raise_it
