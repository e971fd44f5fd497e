"""Pools that run a task in the worker's own process drop nothing that the task does to them."""

import time

import pytest
from celery.backends.cache import CacheBackend
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as Solo
from celery.concurrency.thread import TaskPool as Threads
from celery.exceptions import Ignore, Reject, TaskRevokedError
from celery.fixups.django import DjangoWorkerFixup
from celery.worker import state as worker_state
from django.db import connections

from django_taskkit.models import DeadLetter, DeadLetterEvent, Redelivery
from django_taskkit.worker.in_process import InProcessRequest
from django_taskkit.worker.requests import GuardedRequest

# A pool's threads and greenlets have database connections of their own.
pytestmark = pytest.mark.django_db(transaction=True)

EARLY = {"acks_late": False}
LATE = {"acks_late": True}
BACK = {"acks_late": True, "reject_on_worker_lost": True}
DEADLINE = 20


class Floor:
    """A pool of the worker's own process, started, and what becomes of the messages that it runs."""

    def __init__(self, station, kind):
        self.station = station
        self.kind = kind
        if kind == "gevent":
            from celery.concurrency.gevent import TaskPool as Gevent

            pool_class = Gevent
        else:
            pool_class = {"solo": Solo, "threads": Threads}[kind]
        self.pool = pool_class(1, app=station.app)
        self.pool.start()
        self.answers = []
        self.rows_at_answer = []

    def send(self, body, *args, message_headers=None, redelivered=False, **options):
        task = self.station.app.task(name=f"task-{time.monotonic_ns()}", **options)(body)
        self.result = task.apply_async(args)
        self.task = task
        return self.receive(message_headers, redelivered)

    def receive(self, message_headers=None, redelivered=False):
        message = self.station.take()
        message.headers.update(message_headers or {})
        message.delivery_info["redelivered"] = redelivered
        self.message = message
        self.request = self.station.request(
            message, pool=self.pool, on_ack=self._on_ack, on_reject=self._on_reject, hostname="worker@here"
        )
        return self

    def run(self):
        """Run the task, and wait until nothing of it is left."""
        self.request.execute_using_pool(self.pool)
        self.wait()
        return self

    def wait(self):
        if self.kind == "gevent":
            import gevent

            self.pool._pool.join(timeout=DEADLINE)
            gevent.wait(timeout=1)  # for what was linked to it
        if self.kind == "threads":
            self.pool.executor.submit(connections.close_all).result(DEADLINE)

    def _on_ack(self, *args):
        self._answer("ack")

    def _on_reject(self, logger, errors, requeue):
        self._answer("requeue" if requeue else "reject")

    def _answer(self, answer):
        self.answers.append(answer)
        self.rows_at_answer.append(DeadLetter.objects.count())

    def close(self):
        if self.kind == "threads":
            self.pool.executor.shutdown(wait=True)
        connections.close_all()


@pytest.fixture(params=["solo", "threads", "gevent"])
def floor(request, station, monkeypatch):
    monkeypatch.setattr(DjangoWorkerFixup, "install", lambda self: None)
    made = Floor(station, request.param)
    yield made
    made.close()


def raising(exc):
    def body(*args):
        raise exc

    return body


def nothing(*args):
    return None


class BackendDown(CacheBackend):
    """A result backend that takes nothing."""

    def store_result(self, *args, **kwargs):
        raise ConnectionError("the result backend is down")

    mark_as_done = mark_as_failure = mark_as_revoked = mark_as_retry = store_result


class Fatal(BaseException):
    """Neither an Exception nor one of Python's own."""


def assert_one_death(floor, reason, answers):
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.status) == (reason, "dead")
    assert DeadLetterEvent.objects.count() == 1
    assert floor.answers == answers
    assert floor.request.id not in worker_state.requests
    assert bytes(letter.body) == floor.message.body
    assert letter.queue == floor.station.queue
    return letter


def test_the_pool_decides_who_guards(station):
    @station.app.task
    def run():
        return None

    def guard(pool):
        run.delay()
        return station.request(station.take(), pool=pool)

    assert not isinstance(guard(Prefork(1, app=station.app)), InProcessRequest)
    assert isinstance(guard(Prefork(1, app=station.app)), GuardedRequest)
    assert isinstance(guard(Threads(1, app=station.app)), InProcessRequest)


class TestWhatATaskRaises:
    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_an_exception_is_one_row(self, floor, options):
        floor.send(raising(ValueError("no")), **options).run()

        letter = assert_one_death(floor, "exception", ["ack"])

        assert letter.exception_class == "ValueError"
        assert floor.result.state == "FAILURE"
        if options is LATE:
            assert floor.rows_at_answer == [1]

    @pytest.mark.parametrize("options", [EARLY, LATE])
    @pytest.mark.parametrize(
        "exc", [SystemExit(3), KeyboardInterrupt(), Fatal("odd")], ids=lambda exc: type(exc).__name__
    )
    def test_what_is_no_exception_is_not_dropped(self, floor, exc, options):
        floor.send(raising(exc), **options).run()

        letter = assert_one_death(floor, "worker_lost", ["ack"])

        assert repr(exc) in letter.exception_message
        assert "in body\n    raise exc" in letter.traceback
        assert floor.result.state == "FAILURE"

    def test_it_goes_back_like_a_lost_worker(self, floor):
        floor.send(raising(SystemExit(3)), delivery_limit=2, **BACK).run()

        assert floor.answers == ["requeue"]
        assert not DeadLetter.objects.exists()

    @pytest.mark.parametrize("options", [EARLY, LATE, {"dead_letter": False, **LATE}])
    def test_memory_error_is_the_tasks_own_failure(self, floor, options):
        floor.send(raising(MemoryError("too much")), **options).run()

        assert floor.answers == ["ack"]
        assert floor.result.state == "FAILURE"
        assert DeadLetter.objects.count() == options.get("dead_letter", 1)

    def test_reject_is_a_row(self, floor):
        floor.send(raising(Reject("not mine", requeue=False)), **LATE).run()

        assert_one_death(floor, "rejected", ["reject"])
        assert floor.rows_at_answer == [1]

    def test_ignore_is_none(self, floor):
        floor.send(raising(Ignore()), **LATE).run()

        assert floor.answers == ["ack"]
        assert not DeadLetter.objects.exists()


class TestTheResultBackendIsDown:
    @pytest.mark.parametrize("options", [EARLY, LATE])
    @pytest.mark.parametrize(("body", "reason"), [(raising(ValueError("no")), "exception"), (nothing, "result_lost")])
    def test_the_task_is_a_row_and_the_slot_is_free(self, floor, body, reason, options):
        floor.send(body, **options)
        floor.task.backend = BackendDown(app=floor.station.app, url="memory://")

        floor.run()

        assert_one_death(floor, reason, ["ack"])


class TestTheDeliveryLimit:
    def test_is_counted_when_the_task_starts(self, floor):
        floor.send(nothing, redelivered=True, **LATE).run()

        assert floor.answers == ["ack"]
        assert floor.request.taskkit_starts == 2

    def test_is_counted_where_the_transport_says_so_beside_the_properties(self, floor):
        """As kombu's filesystem transport does."""
        floor.send(nothing, **LATE)
        floor.message._raw = {"redelivered": True}
        floor.run()

        assert floor.request.taskkit_starts == 2

    def test_forgets_the_starts_of_a_message_that_has_ended(self, floor):
        floor.send(nothing, redelivered=True, **LATE).run()

        assert not Redelivery.objects.exists()

    def test_ends_a_message_before_it_runs(self, floor):
        ran = []

        def body():
            ran.append(1)

        floor.send(body, redelivered=True, delivery_limit=1, **LATE).run()

        assert ran == []
        letter = assert_one_death(floor, "delivery_limit", ["ack"])
        assert letter.exception_message == "started 1 times and never ended"
        assert floor.rows_at_answer == [1]
        assert floor.result.state == "FAILURE"


class TestWhatIsNotToRun:
    def test_a_revoked_task_is_a_row(self, floor):
        floor.send(nothing, **LATE)
        worker_state.revoked.add(floor.request.id)

        with pytest.raises(TaskRevokedError):
            floor.request.execute_using_pool(floor.pool)

        assert_one_death(floor, "revoked", ["ack"])
        assert floor.rows_at_answer == [1]

    def test_a_pool_that_takes_nothing_says_so(self, station):
        floor = Floor(station, "threads")
        floor.send(nothing, **LATE)
        floor.pool.executor.shutdown()

        with pytest.raises(RuntimeError, match="shutdown"):
            floor.request.execute_using_pool(floor.pool)

        assert floor.answers == []
        assert not DeadLetter.objects.exists()


class TestAKilledGreenlet:
    @pytest.fixture
    def floor(self, station, monkeypatch):
        pytest.importorskip("gevent")
        monkeypatch.setattr(DjangoWorkerFixup, "install", lambda self: None)
        made = Floor(station, "gevent")
        yield made
        made.close()

    def start(self, floor, **options):
        """Run a task until it waits."""
        import gevent

        started = []

        def body():
            started.append(1)
            gevent.sleep(DEADLINE)

        floor.send(body, **options)
        floor.request.execute_using_pool(floor.pool)
        deadline = time.monotonic() + DEADLINE
        while not started and time.monotonic() < deadline:
            gevent.sleep(0)
        assert started
        return floor

    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_that_nobody_asked_for_is_a_lost_worker(self, floor, options):
        self.start(floor, **options)

        floor.pool.terminate_job(floor.request.worker_pid)
        floor.wait()

        assert_one_death(floor, "worker_lost", ["ack"])

    @pytest.mark.parametrize("options", [EARLY, LATE, BACK])
    def test_that_was_terminated_is_revoked(self, floor, options):
        self.start(floor, **options)

        floor.request.terminate(floor.pool)
        floor.wait()

        assert_one_death(floor, "revoked", ["ack"])
        assert floor.result.state == "REVOKED"

    @pytest.mark.parametrize("options", [LATE, BACK])
    def test_by_a_cold_shutdown_leaves_a_late_message_with_the_broker(self, floor, options):
        self.start(floor, **options)

        floor.request.cancel(floor.pool)
        floor.wait()

        assert floor.answers == []
        assert not DeadLetter.objects.exists()

    def test_by_a_cold_shutdown_makes_a_row_of_an_early_one(self, floor):
        self.start(floor, **EARLY)

        floor.request.cancel(floor.pool)
        floor.wait()

        assert_one_death(floor, "worker_lost", ["ack"])

    @pytest.mark.parametrize("options", [EARLY, LATE])
    def test_by_the_hard_time_limit_is_one_row(self, floor, options):
        self.start(floor, time_limit=0.2, **options)

        floor.wait()

        assert_one_death(floor, "time_limit", ["ack"])
        assert floor.result.state == "FAILURE"

    def test_whose_message_goes_back_is_not_lost_with_the_result_backend_down(self, floor):
        self.start(floor, time_limit=0.2, acks_on_failure_or_timeout=False, **LATE)
        floor.task.backend = BackendDown(app=floor.station.app, url="memory://")

        floor.wait()

        assert "ack" not in floor.answers
        assert not DeadLetter.objects.exists()


class TestASuccess:
    def test_is_acknowledged_once(self, floor):
        floor.send(nothing, **LATE).run()

        assert floor.answers == ["ack"]
        assert not DeadLetter.objects.exists()

    def test_stays_one_if_its_acknowledgement_fails(self, floor):
        """The broker will deliver it again; it has not died."""
        floor.send(nothing, **LATE)
        asked = []

        def broken(*args):
            asked.append(args)
            if len(asked) == 1:
                raise RuntimeError("the channel is closed")

        floor.request._on_ack = broken
        floor.run()

        assert asked
        assert not DeadLetter.objects.exists()
        assert floor.result.state == "SUCCESS"
