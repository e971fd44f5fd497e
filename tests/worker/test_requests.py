"""What happens to a message in the worker is written down before it is acknowledged."""

import inspect
import time

import pytest
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import __version__ as celery_version
from celery import chord, signals
from celery.app.task import Task
from celery.backends.cache import CacheBackend
from celery.exceptions import Ignore, Reject, TaskRevokedError
from celery.worker import state as worker_state
from celery.worker.request import Request
from kombu.exceptions import OperationalError

from django_taskkit.models import DeadLetter, DeadLetterEvent

pytestmark = pytest.mark.django_db

CELERY_57 = tuple(map(int, celery_version.split(".")[:2])) >= (5, 7)
since_celery_57 = pytest.mark.skipif(not CELERY_57, reason="new in Celery 5.7")

EARLY = {"acks_late": False}
LATE = {"acks_late": True}
BACK = {"acks_late": True, "reject_on_worker_lost": True}
LIMIT = {"time_limit": 5}


def nothing(*args):
    return None


def same(value):
    return value


class Line:
    """One task on its way through a worker, and all that Celery says about it meanwhile."""

    def __init__(self, station, body=nothing, **options):
        self.station = station
        self.task = station.app.task(name="the.task", **options)(body)
        self.answers = []
        self.rows_at_answer = []
        self.failures = []
        self.errors = []

        @station.app.task(name="the.errback")
        def errback(request, exc, traceback):
            self.errors.append(exc)

        self.errback = errback

    def send(self, *args, **options):
        self.result = self.task.apply_async(args or (7,), **{"link_error": self.errback.s(), **options})
        return self

    def receive(self, message=None, redelivered=False, **options):
        self.message = message or self.station.take()
        if redelivered:
            self.message.delivery_info["redelivered"] = True
        self.request = self.station.request(
            self.message, on_ack=self._on_ack, on_reject=self._on_reject, hostname="worker@here", **options
        )
        return self

    def start(self, **options):
        self.receive(**options)
        self.request.execute_using_pool(self.station.pool)
        self.job = self.station.pool.jobs.pop().accept()
        return self

    def _on_ack(self, *args):
        self.answers.append("ack")
        self.rows_at_answer.append(DeadLetter.objects.count())
        self.message.ack_log_error(*args)

    def _on_reject(self, logger, errors, requeue):
        self.answers.append("requeue" if requeue else "reject")
        self.rows_at_answer.append(DeadLetter.objects.count())
        self.message.reject_log_error(logger, errors, requeue)

    def on_failure_signal(self, sender, exception, **kwargs):
        if sender.name == self.task.name:
            self.failures.append(exception)

    @property
    def running(self):
        return self.request.id in worker_state.requests


@pytest.fixture
def line(station):
    """Make a :class:`Line`; its task's failures are listened to."""
    lines = []

    def make(*args, **options):
        made = Line(station, *args, **options)
        signals.task_failure.connect(made.on_failure_signal)
        lines.append(made)
        return made

    yield make
    for made in lines:
        signals.task_failure.disconnect(made.on_failure_signal)


def raising_any(exc):
    def call(*args, **kwargs):
        raise exc

    return call


def raising(exc):
    def body(*args):
        raise exc

    return body


class BackendDown(CacheBackend):
    """A result backend that takes nothing."""

    def store_result(self, *args, **kwargs):
        raise ConnectionError("the result backend is down")

    mark_as_failure = mark_as_revoked = mark_as_retry = store_result


def backend_down(line):
    line.task.backend = BackendDown(app=line.station.app, url="memory://")


def only_letter():
    return DeadLetter.objects.get()


def assert_one_death(line, reason, answers, exception_class=None):
    """Assert that ``line`` ended in one row, one entry of its history, and the broker's ``answers``."""
    letter = only_letter()
    assert (letter.reason, letter.status) == (reason, "dead")
    if exception_class:
        assert letter.exception_class == exception_class
    assert [event.kind for event in DeadLetterEvent.objects.all()] == ["died"]
    assert line.answers == answers
    assert not line.running
    return letter


class TestALostProcess:
    def test_is_a_row_with_the_whole_message(self, line, settings):
        settings.TASKKIT = {"RELEASE": "1.2.3"}
        lost = line().send(7, headers={"tenant": "t1"}, priority=3).start()

        lost.job.lose()

        letter = assert_one_death(lost, "worker_lost", ["ack"], "billiard.exceptions.WorkerLostError")
        assert "signal 9" in letter.exception_message
        assert bytes(letter.body) == lost.message.body
        assert letter.headers == lost.message.headers
        assert letter.headers["tenant"] == "t1"
        assert letter.properties["priority"] == 3
        assert (letter.queue, letter.worker, letter.release) == (lost.station.queue, "worker@here", "1.2.3")
        assert (letter.task_id, letter.task_name) == (lost.result.id, "the.task")
        assert letter.traceback.rstrip().endswith(letter.exception_message)

    def test_fails_once_for_everybody(self, line):
        lost = line().send().start()

        lost.job.lose()
        lost.station.run_all()

        assert lost.result.state == "FAILURE"
        assert [type(exc) for exc in lost.failures] == [WorkerLostError]
        assert len(lost.errors) == 1

    def test_that_is_acknowledged_late_is_written_before(self, line):
        lost = line(**LATE).send().start()
        assert lost.answers == []

        lost.job.lose()

        assert_one_death(lost, "worker_lost", ["ack"])
        assert lost.rows_at_answer == [1]

    def test_that_goes_back_to_the_broker_is_not_dead(self, line):
        lost = line(**BACK).send().start()

        lost.job.lose()

        assert lost.answers == ["requeue"]
        assert not DeadLetter.objects.exists()
        assert lost.station.waiting() == 1
        assert (lost.failures, lost.result.state) == ([], "PENDING")
        assert not lost.running

    def test_goes_back_until_the_limit(self, line, settings):
        settings.TASKKIT = {"DELIVERY_LIMIT": 3}
        lost = line(**BACK).send()

        for start in range(3):
            lost.start(redelivered=start > 0)
            lost.job.lose()

        letter = assert_one_death(lost, "delivery_limit", ["requeue", "requeue", "ack"])
        assert letter.exception_message.startswith("started 3 times and never ended; at last: WorkerLostError(")
        assert "WorkerLostError" in letter.traceback
        assert lost.rows_at_answer == [0, 0, 1]
        assert lost.result.state == "FAILURE"
        assert len(lost.failures) == len(lost.errors) == 1

    def test_a_task_has_its_own_limit(self, line):
        lost = line(delivery_limit=1, **BACK).send().start()

        lost.job.lose()

        assert_one_death(lost, "delivery_limit", ["ack"])

    @pytest.mark.parametrize("limit", [{"task": 0}, {"settings": None}])
    def test_without_a_limit_it_goes_back_for_ever(self, line, settings, limit, django_assert_num_queries):
        if "settings" in limit:
            settings.TASKKIT = {"DELIVERY_LIMIT": None}
        lost = line(delivery_limit=limit.get("task"), **BACK).send()

        for _ in range(5):
            with django_assert_num_queries(0):
                lost.receive(redelivered=True).request.execute_using_pool(lost.station.pool)
            lost.station.pool.jobs.pop().accept().lose()

        assert lost.answers == ["requeue"] * 5

    def test_a_message_whose_worker_died_again_and_again_is_not_even_started(self, line):
        """Nobody reports a worker that was killed whole."""
        lost = line(delivery_limit=2, **BACK).send()
        message = lost.station.take()
        for start in range(2):
            lost.start(message=message, redelivered=start > 0)

        lost.receive(message=message, redelivered=True)
        with pytest.raises(TaskRevokedError):  # by which the worker gets its slot back
            lost.request.execute_using_pool(lost.station.pool)

        assert lost.station.pool.jobs == []
        letter = assert_one_death(lost, "delivery_limit", ["ack"])
        assert letter.exception_message == "started 2 times and never ended"
        assert lost.rows_at_answer == [1]
        assert lost.result.state == "FAILURE"

    def test_without_capture_it_is_as_limited(self, line):
        lost = line(delivery_limit=1, dead_letter=False, **BACK).send().start()

        lost.job.lose()

        assert lost.answers == ["ack"]
        assert not DeadLetter.objects.exists()
        assert lost.result.state == "FAILURE"


@since_celery_57
class TestALostProcessThatCeleryRetries:
    def test_is_not_dead(self, line):
        lost = line(retry_on_worker_lost=True, max_retries=1, default_retry_delay=0, **LATE).send().start()

        lost.job.lose()

        assert lost.answers == ["ack"]
        assert not DeadLetter.objects.exists()
        assert lost.station.waiting() == 1

    @pytest.mark.parametrize("options", [EARLY, LATE, BACK])
    def test_is_dead_when_its_retries_are_used_up(self, line, options):
        lost = line(retry_on_worker_lost=True, max_retries=1, default_retry_delay=0, **options).send().start()
        lost.job.lose()
        lost.start().job.lose()

        letter = assert_one_death(lost, "worker_lost", ["ack", "ack"])
        assert letter.attempts == 2
        assert lost.rows_at_answer[-1] == (1 if options["acks_late"] else 0)

    def test_is_dead_when_the_retry_can_not_be_published(self, line, monkeypatch):
        lost = line(retry_on_worker_lost=True, **LATE).send().start()
        monkeypatch.setattr(lost.task, "signature_from_request", raising_any(OperationalError("no broker")))

        lost.job.lose()

        assert_one_death(lost, "publish_failed", ["ack"])
        assert lost.rows_at_answer == [1]

    def test_is_acknowledged_though_the_retry_can_not_be_noted(self, line):
        lost = line(retry_on_worker_lost=True, default_retry_delay=0, **LATE).send().start()
        backend_down(lost)

        lost.job.lose()

        assert lost.answers == ["ack"]
        assert lost.station.waiting() == 1
        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize("options", [EARLY, LATE, BACK])
    def test_that_had_succeeded_is_no_failure(self, line, options):
        lost = line(**options).send().start()
        lost.task.backend.mark_as_done(lost.result.id, 7)

        lost.job.lose()

        assert not DeadLetter.objects.exists()
        assert lost.answers == ["ack"]
        assert lost.result.state == "SUCCESS"


class TestTheHardTimeLimit:
    @pytest.mark.parametrize("options", [EARLY, LATE, BACK])
    def test_is_told_once(self, line, options):
        slow = line(**LIMIT, **options).send().start()

        slow.job.exceed_hard_limit()
        slow.station.run_all()

        letter = assert_one_death(slow, "time_limit", ["ack"], "billiard.exceptions.TimeLimitExceeded")
        assert letter.exception_message == "TimeLimitExceeded(5,)"
        assert slow.rows_at_answer == [1 if options["acks_late"] else 0]
        assert slow.result.state == "FAILURE"
        assert [type(exc) for exc in slow.failures] == [TimeLimitExceeded]
        assert len(slow.errors) == 1

    def test_is_told_once_without_capture_as_well(self, line):
        slow = line(dead_letter=False, **LIMIT, **LATE).send().start()

        slow.job.exceed_hard_limit()
        slow.station.run_all()

        assert not DeadLetter.objects.exists()
        assert slow.answers == ["ack"]
        assert len(slow.failures) == len(slow.errors) == 1

    def test_counts_a_member_of_a_chord_once(self, station, monkeypatch):
        counted = []
        monkeypatch.setattr(
            type(station.app.backend),
            "on_chord_part_return",
            lambda self, request, state, result, **kwargs: counted.append((request.id, state)),
        )

        @station.app.task(**LIMIT)
        def slow():
            return None

        @station.app.task
        def body(results):
            return results

        chord([slow.s(), slow.s()])(body.s())
        message = station.take()
        station.request(message).execute_using_pool(station.pool)
        station.pool.jobs.pop().accept().exceed_hard_limit()

        assert counted == [(message.headers["id"], "FAILURE")]
        assert only_letter().reason == "time_limit"

    def test_whose_hooks_find_their_request(self, line):
        if not CELERY_57:
            pytest.skip("Celery calls no hooks of the task then")
        seen = []

        class Looking(Task):
            def on_failure(self, exc, task_id, args, kwargs, einfo):
                seen.append((self.request.id, self.request.headers))

        slow = line(base=Looking, **LIMIT).send(7, headers={"tenant": "t1"}).start()

        slow.job.exceed_hard_limit()

        assert [(task_id, headers["tenant"]) for task_id, headers in seen] == [(slow.result.id, "t1")]

    def test_with_a_message_that_goes_back_is_not_dead(self, line):
        slow = line(acks_on_failure_or_timeout=False, **LIMIT, **LATE).send().start()

        slow.job.exceed_hard_limit()

        assert slow.answers == ["requeue"]
        assert not DeadLetter.objects.exists()
        assert (slow.failures, slow.result.state) == ([], "PENDING")

    def test_goes_back_until_the_limit_and_is_told_once_then(self, line):
        slow = line(acks_on_failure_or_timeout=False, delivery_limit=2, **LIMIT, **LATE).send()

        for start in range(2):
            slow.start(redelivered=start > 0)
            slow.job.exceed_hard_limit()
        slow.station.run_all()

        letter = only_letter()
        assert letter.reason == "delivery_limit"
        assert slow.answers[0] == "requeue"
        assert slow.answers[1] in ("ack", "reject")
        assert slow.rows_at_answer == [0, 1]
        assert len(slow.failures) == len(slow.errors) == 1

    def test_with_the_result_backend_down_is_acknowledged(self, line):
        slow = line(**LIMIT, **LATE).send().start()
        backend_down(slow)

        slow.job.exceed_hard_limit()

        assert_one_death(slow, "time_limit", ["ack"])

    def test_of_another_task_is_an_error_like_any_other(self, line):
        """A task that waits for another gets what the other failed of."""
        waiting = line(raising(TimeLimitExceeded(5)), **BACK).send().start()

        waiting.job.run()

        assert_one_death(waiting, "exception", ["ack"])
        assert waiting.result.state == "FAILURE"

    def test_a_lost_process_of_another_task_is_an_error_like_any_other(self, line):
        waiting = line(raising(WorkerLostError("the other's")), **BACK).send().start()

        waiting.job.run()

        assert_one_death(waiting, "exception", ["ack"])
        assert waiting.station.waiting() == 0


class TestReject:
    @pytest.mark.parametrize(("options", "answers"), [(EARLY, ["ack"]), (LATE, ["reject"])])
    def test_without_requeue_is_a_row(self, line, options, answers):
        said = line(raising(Reject("not mine", requeue=False)), **options).send().start()

        said.job.run()

        letter = assert_one_death(said, "rejected", answers)
        assert "not mine" in letter.exception_message
        assert said.rows_at_answer == [1 if options["acks_late"] else 0]
        if CELERY_57:
            assert said.result.state == "FAILURE"
            assert len(said.failures) == 1

    def test_with_requeue_when_it_is_too_late_for_that_is_a_row(self, line):
        said = line(raising(Reject("not now", requeue=True)), **EARLY).send().start()

        said.job.run()

        assert_one_death(said, "rejected", ["ack"])

    def test_with_requeue_goes_back_until_the_limit(self, line):
        said = line(raising(Reject("not now", requeue=True)), delivery_limit=2, **LATE).send()

        for start in range(2):
            said.start(redelivered=start > 0)
            said.job.run()

        assert_one_death(said, "delivery_limit", ["requeue", "ack"])
        assert said.rows_at_answer == [0, 1]

    def test_at_the_limit_everybody_hears_of_it(self, line):
        said = line(raising(Reject("not now", requeue=True)), delivery_limit=1, **LATE).send().start()

        said.job.run()
        said.station.run_all()

        assert said.result.state == "FAILURE"
        assert len(said.failures) == len(said.errors) == 1

    def test_with_the_result_backend_down_it_is_a_row(self, line):
        said = line(raising(Reject("not mine", requeue=False)), **LATE).send().start()
        backend_down(said)

        said.job.run()

        assert_one_death(said, "rejected", ["ack" if CELERY_57 else "reject"])

    @pytest.mark.parametrize(("options", "answers"), [(EARLY, ["ack"]), (LATE, ["reject"])])
    def test_of_celerys_retry_that_could_not_publish_says_so(self, line, monkeypatch, options, answers):
        def retrying(self, *args):
            self.retry(countdown=0)

        unlucky = line(retrying, bind=True, **options).send().start()
        monkeypatch.setattr(unlucky.station.app.amqp, "send_task_message", raising_any(OperationalError("no broker")))

        unlucky.job.run()

        assert_one_death(unlucky, "publish_failed", answers, "kombu.exceptions.OperationalError")


class TestWhatEndsAProcess:
    @pytest.mark.parametrize("options", [EARLY, LATE])
    @pytest.mark.parametrize("exc", [SystemExit(3), KeyboardInterrupt()])
    def test_is_a_lost_worker(self, line, exc, options):
        leaving = line(raising(exc), **options).send().start()

        leaving.job.run()
        leaving.station.run_all()

        letter = assert_one_death(leaving, "worker_lost", ["ack"], "billiard.exceptions.WorkerLostError")
        assert repr(exc) in letter.exception_message
        assert "in body\n    raise exc" in letter.traceback
        assert leaving.result.state == "FAILURE"
        assert len(leaving.failures) == len(leaving.errors) == 1

    def test_goes_back_like_a_lost_worker(self, line):
        leaving = line(raising(SystemExit(3)), delivery_limit=2, **BACK).send()

        for start in range(2):
            leaving.start(redelivered=start > 0)
            leaving.job.run()

        assert_one_death(leaving, "delivery_limit", ["requeue", "ack"])

    @pytest.mark.parametrize("options", [EARLY, LATE, BACK, {"dead_letter": False, **LATE}])
    def test_memory_error_is_the_tasks_own_failure(self, line, options):
        hungry = line(raising(MemoryError("too much")), **options).send().start()

        hungry.job.run()
        hungry.station.run_all()

        assert hungry.answers == ["ack"]
        assert hungry.result.state == "FAILURE"
        assert len(hungry.errors) == 1
        if options.get("dead_letter", True):
            assert_one_death(hungry, "exception", ["ack"], "MemoryError")
        else:
            assert not DeadLetter.objects.exists()

    def test_memory_error_outside_the_body_does_not_end_the_worker(self, line):
        hungry = line(**LATE).send().start()

        hungry.job.report(MemoryError("while unpacking"))

        assert_one_death(hungry, "exception", ["ack"], "MemoryError")
        assert hungry.rows_at_answer == [1]

    def test_base_exceptions_have_the_traceback_of_the_process(self, line):
        class Odd(BaseException):
            pass

        odd = line(**LATE).send().start()

        odd.job.applied._error_callback(_reported(Odd("odd")))

        letter = assert_one_death(odd, "exception", ["ack"])
        assert "in _reported" in letter.traceback


def _reported(exc):
    from billiard.einfo import ExceptionInfo

    try:
        raise exc  # noqa: TRY301 (billiard reads what is being handled)
    except BaseException:
        return ExceptionInfo()


class TestTheResultBackendIsDown:
    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_when_a_process_is_lost(self, line, options, caplog):
        lost = line(**options).send().start()
        backend_down(lost)

        lost.job.lose()

        assert_one_death(lost, "worker_lost", ["ack"])
        assert "its end could not be reported: ConnectionError('the result backend is down')" in caplog.text

    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_when_a_task_fails(self, line, options):
        failing = line(raising(ValueError("no")), **options).send().start()
        backend_down(failing)

        failing.job.run()

        assert_one_death(failing, "exception", ["ack"], "ValueError")

    def test_when_a_task_starts(self, line):
        ran = []

        def body(*args):
            ran.append(args)

        started = line(body, track_started=True, **LATE).send().start()
        backend_down(started)

        started.job.run()

        assert ran == []
        assert_one_death(started, "exception", ["ack"], "ConnectionError")
        assert started.rows_at_answer == [1]

    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_when_it_is_revoked(self, line, options):
        revoked = line(**options).send().receive()
        backend_down(revoked)
        worker_state.revoked.add(revoked.request.id)

        with pytest.raises(TaskRevokedError):
            revoked.request.execute_using_pool(revoked.station.pool)

        assert_one_death(revoked, "revoked", ["ack"])


class TestWhatIsNotToRun:
    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_a_revoked_task_is_a_row(self, line, options):
        revoked = line(**options).send().receive()
        worker_state.revoked.add(revoked.request.id)

        with pytest.raises(TaskRevokedError):
            revoked.request.execute_using_pool(revoked.station.pool)

        letter = assert_one_death(revoked, "revoked", ["ack"])
        assert revoked.rows_at_answer == [1]
        assert bytes(letter.body) == revoked.message.body
        assert revoked.result.state == "REVOKED"

    def test_an_expired_task_is_a_row(self, line):
        expired = line().send(expires=-60).receive()

        assert expired.request.revoked()
        assert expired.request.revoked()  # told twice, written once

        assert_one_death(expired, "expired", ["ack"])
        assert expired.rows_at_answer == [1]

    @pytest.mark.parametrize("options", [EARLY, LATE, BACK])
    def test_a_terminated_task_is_a_row(self, line, options):
        ended = line(**options).send().start()

        ended.request.terminate(ended.station.pool)
        ended.job.terminated()

        assert [pid for pid, _signal in ended.station.pool.killed] == [4242]
        assert_one_death(ended, "revoked", ["ack"])
        assert ended.result.state == "REVOKED"

    def test_a_process_that_somebody_terminated_is_a_row(self, line):
        ended = line(**LATE).send().start()

        ended.job.terminated()

        assert_one_death(ended, "revoked", ["ack"])
        assert ended.rows_at_answer == [1]

    def test_what_is_revoked_without_capture_is_no_row(self, line):
        revoked = line(dead_letter=False).send().receive()
        worker_state.revoked.add(revoked.request.id)

        assert revoked.request.revoked()

        assert not DeadLetter.objects.exists()
        assert revoked.answers == ["ack"]

    def test_a_rejected_message_is_a_row(self, line):
        beyond = line(**LATE).send().receive()

        beyond.request.reject(requeue=False)

        assert only_letter().reason == "invalid"
        assert beyond.rows_at_answer == [1]

    @pytest.mark.parametrize("embed", ["[1], 7", "[1], []", '{"a": 1}, 7', '{"a": 1}, [1]', "null, {}"])
    def test_a_message_that_celery_would_acknowledge_unread_is_refused(self, line, embed):
        from celery.exceptions import InvalidTaskError

        odd = line().send()
        message = odd.station.take()
        message._decoded_cache = None
        message.body = f"[[7], {embed}]"

        with pytest.raises(InvalidTaskError, match="have to be mappings"):
            odd.receive(message=message)


class TestARequeuedTaskThatWasRevoked:
    def send(self, line, requeued_at):
        sent = line().send(headers={"taskkit_requeued_at": requeued_at, "taskkit_generation": 1})
        return sent.receive()

    def test_runs(self, line):
        sent = line().send(headers={"taskkit_requeued_at": time.time() + 1, "taskkit_generation": 1})
        worker_state.revoked.add(sent.result.id)

        sent.receive()

        assert not sent.request.revoked()
        assert sent.answers == []

    def test_is_revoked_if_somebody_says_so_again(self, line):
        sent = self.send(line, time.time() - 60)
        worker_state.revoked.add(sent.request.id)

        assert sent.request.revoked()
        assert only_letter().reason == "revoked"

    def test_is_revoked_after_a_first_look(self, line):
        sent = self.send(line, time.time())
        assert not sent.request.revoked()
        worker_state.revoked.add(sent.request.id, now=time.monotonic() + 1)

        assert sent.request.revoked()


class TestAColdShutdown:
    @pytest.fixture(autouse=True)
    def restored(self):
        yield
        worker_state.should_terminate = None

    def test_a_task_that_was_acknowledged_is_a_row(self, line):
        cut = line(**EARLY).send().start()

        cut.request.cancel(cut.station.pool)
        cut.job.terminated()

        assert_one_death(cut, "worker_lost", ["ack"], "django_taskkit.worker.errors.CancelledError")

    def test_a_task_that_was_not_comes_back(self, line):
        cut = line(**LATE).send().start()

        cut.request.cancel(cut.station.pool)
        cut.job.terminated()

        assert cut.answers == []
        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize("options", [LATE, BACK])
    @pytest.mark.parametrize("end", [SystemExit(15), WorkerLostError("signal 15")])
    def test_whatever_the_process_says_at_its_end(self, line, end, options):
        cut = line(**options).send().start()

        cut.request.cancel(cut.station.pool)
        cut.job.report(end)

        assert "ack" not in cut.answers
        assert not DeadLetter.objects.exists()
        assert cut.failures == []

    def test_with_the_result_backend_down_the_others_are_cancelled_as_well(self, line):
        cut = line(**EARLY).send().start()
        backend_down(cut)

        cut.request.cancel(cut.station.pool)
        cut.job.terminated()

        assert_one_death(cut, "worker_lost", ["ack"])

    def test_a_task_that_failed_meanwhile_is_a_row(self, line):
        cut = line(raising(ValueError("no")), **LATE).send().start()

        cut.request.cancel(cut.station.pool)
        cut.job.run()

        assert only_letter().exception_class == "ValueError"


class TestAFailureThatTheProcessHasRecorded:
    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_costs_the_worker_no_query(self, line, options, django_assert_num_queries):
        failing = line(raising(ValueError("no")), **options).send().start()
        reported = failing.job.target(*failing.job.args)
        assert only_letter().exception_class == "ValueError"
        failing.request._on_ack = lambda *args: failing.answers.append("ack late")

        with django_assert_num_queries(0):
            failing.request.on_success(reported)

        assert failing.answers == (["ack"] if options is EARLY else ["ack late"])

    def test_is_not_invalid_because_it_is_rejected_then(self, line, django_assert_num_queries):
        failing = line(raising(ValueError("no")), acks_on_failure_or_timeout=False, **LATE).send().start()
        reported = failing.job.target(*failing.job.args)
        failing.request._on_reject = lambda logger, errors, requeue: failing.answers.append(requeue)

        with django_assert_num_queries(0):
            failing.request.on_success(reported)

        assert failing.answers == [False]
        assert only_letter().reason == "exception"

    def test_is_recorded_by_the_worker_if_the_process_could_not(self, line, monkeypatch):
        from django_taskkit.worker import capture

        failing = line(raising(ValueError("no")), **LATE).send().start()
        with monkeypatch.context() as patch:
            patch.setattr(capture, "record", lambda death: False)
            reported = failing.job.target(*failing.job.args)

        failing.request.on_success(reported)

        letter = assert_one_death(failing, "exception", ["ack"], "ValueError")
        assert "in body\n    raise exc" in letter.traceback
        assert failing.rows_at_answer == [1]


class TestHowItEnds:
    def test_a_success_is_acknowledged_and_costs_no_query(self, line, django_assert_num_queries):
        fine = line(same, **LATE).send().receive()
        fine.request._on_ack = lambda *args: fine.answers.append("ack")

        with django_assert_num_queries(0):
            fine.request.execute_using_pool(fine.station.pool)
            fine.station.pool.jobs.pop().run()

        assert fine.answers == ["ack"]
        assert not fine.running

    def test_ignore_is_no_death(self, line):
        ignored = line(raising(Ignore()), **LATE).send().start()

        ignored.job.run()

        assert ignored.answers == ["ack"]
        assert not DeadLetter.objects.exists()

    def test_opt_in_leaves_others_alone(self, line, settings):
        settings.TASKKIT = {"CAPTURE": "opt_in"}
        lost = line(**LATE).send().start()

        lost.job.lose()

        assert not DeadLetter.objects.exists()
        assert (lost.answers, lost.result.state) == (["ack"], "FAILURE")

    def test_opt_in_takes_who_asks(self, line, settings):
        settings.TASKKIT = {"CAPTURE": "opt_in"}
        lost = line(dead_letter=True, **LATE).send().start()

        lost.job.lose()

        assert_one_death(lost, "worker_lost", ["ack"])

    def test_a_projects_own_request_class_is_kept(self, line):
        """Its hooks run after the row is written; execute_using_pool and on_success are Celery's in any case."""
        seen = []

        class Own(Request):
            __slots__ = ("note",)

            def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
                seen.append(DeadLetter.objects.count())
                return super().on_failure(exc_info, send_failed_event, return_ok)

        class WithOwn(Task):
            Request = Own

        lost = line(base=WithOwn, **LATE).send().start()
        lost.job.lose()

        assert isinstance(lost.request, Own)
        assert seen == [1]
        assert_one_death(lost, "worker_lost", ["ack"])

    def test_a_message_of_the_first_protocol_is_kept_as_it_is(self, line):
        old = line()
        old.station.app.conf.task_protocol = 1
        message = old.send().station.take()
        from celery.worker.strategy import proto1_to_proto2

        body, headers, decoded, utc = proto1_to_proto2(message, message.payload)
        old.message = message
        old.request = old.station.request(
            message, headers, body=body, decoded=decoded, utc=utc, on_ack=old._on_ack, on_reject=old._on_reject
        )
        old.request.execute_using_pool(old.station.pool)
        old.station.pool.jobs.pop().accept().lose()

        letter = only_letter()
        assert bytes(letter.body) == _bytes(message.body)
        assert (letter.reason, letter.task_name) == ("worker_lost", "the.task")


def _bytes(body):
    return body.encode() if isinstance(body, str) else bytes(body)


def test_what_is_overridden_has_celerys_signatures():
    """A Celery that calls them otherwise would fail here first."""
    from django_taskkit.worker.requests import GuardedRequest

    for name in ("on_failure", "on_timeout", "reject", "_announce_revoked", "revoked"):
        ours = list(inspect.signature(getattr(GuardedRequest, name)).parameters)
        assert ours == list(inspect.signature(getattr(Request, name)).parameters), name
