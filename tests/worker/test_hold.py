"""A member of a chord or group that dies is held where that was chosen: Celery tells nobody of its workflow."""

import pytest
from celery import chain, chord, group, signals
from celery.app.task import Context
from celery.contrib.django.task import DjangoTask
from celery.exceptions import Reject
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult
from celery.worker import state as worker_state

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.dlq import requeue, rows, spool
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.models import DeadLetter, DeadLetterEvent
from django_taskkit.worker.holding import is_member, wants_hold

pytestmark = pytest.mark.django_db


@pytest.fixture
def seen():
    """What error callbacks, hooks and signals saw."""
    return []


@pytest.fixture
def tasks(station, seen):
    class Tasks:
        pass

    class Watched(DjangoTask):
        def on_failure(self, exc, task_id, args, kwargs, einfo):
            seen.append(("on_failure", repr(exc)))

    @station.app.task(name="number")
    def number(value):
        return value

    @station.app.task(name="fails", base=Watched, bind=True)
    def fails(self, *args):
        if Tasks.error is not None:
            raise Tasks.error
        return 1

    @station.app.task(name="errback")
    def errback(request, exc, traceback):
        seen.append(("errback", request.id))

    def on_signal(sender, task_id, exception, **kwargs):
        seen.append(("task_failure", repr(exception)))

    Tasks.error = ValueError("boom")
    Tasks.number, Tasks.fails, Tasks.errback = number, fails, errback
    signals.task_failure.connect(on_signal)
    yield Tasks
    signals.task_failure.disconnect(on_signal)


def a_group(tasks, **options):
    """Send a group of one that fails and one that doesn't; return the result of the former."""
    member = tasks.fails.s(7).set(**options)
    member.link_error(tasks.errback.s())
    return group([member, tasks.number.s(1)]).apply_async().results[0]


def status():
    return DeadLetter.objects.get().status


class TestWhoIsHeld:
    def test_nobody_unless_it_is_chosen(self, station, tasks, seen):
        result = a_group(tasks)
        station.run_all()

        assert (status(), result.state) == ("dead", "FAILURE")
        assert ("errback", result.id) in seen

    def test_a_task_says_so(self, station, tasks):
        tasks.fails.hold = True
        result = a_group(tasks)
        station.run_all()

        assert (status(), result.state) == ("held", "HELD")

    def test_the_settings_say_so(self, station, tasks, settings):
        settings.TASKKIT = {"HOLD_WORKFLOWS": True}
        a_group(tasks)
        station.run_all()

        assert status() == "held"

    def test_the_task_wins_over_the_settings(self, station, tasks, settings):
        settings.TASKKIT = {"HOLD_WORKFLOWS": True}
        tasks.fails.hold = False
        a_group(tasks)
        station.run_all()

        assert status() == "dead"

    @pytest.mark.parametrize(("said", "becomes"), [(True, "held"), (False, "dead")])
    def test_the_header_wins_over_both(self, station, tasks, settings, said, becomes):
        settings.TASKKIT = {"HOLD_WORKFLOWS": not said}
        tasks.fails.hold = not said
        a_group(tasks, headers={"taskkit_hold": said})
        station.run_all()

        assert status() == becomes

    def test_the_header_of_a_call_of_the_canvas_reaches_its_members(self, station, tasks):
        group([tasks.fails.s(7), tasks.number.s(1)]).apply_async(headers={"taskkit_hold": True})
        station.run_all()

        assert status() == "held"

    def test_another_meaning_of_hold_in_the_project_is_not_ours(self):
        task = type("Task", (), {"hold": lambda self: True})()

        assert not wants_hold(task, Context())

    def test_our_base_classes_leave_it_to_the_settings(self):
        assert DeadLetterTask.hold is None
        assert BaseTaskWithRetry.hold is None

    def test_a_task_alone_is_not(self, station, tasks):
        tasks.fails.hold = True
        result = tasks.fails.delay(7)
        station.run_all()

        assert (status(), result.state) == ("dead", "FAILURE")

    def test_nor_is_a_chain_alone(self, station, tasks):
        tasks.fails.hold = True
        result = chain(tasks.fails.s(7), tasks.number.s()).apply_async()
        station.run_all()

        assert (status(), result.state) == ("dead", "FAILURE")

    def test_a_chain_that_is_a_member_is_by_each_of_its_steps(self, station, tasks):
        tasks.fails.hold = True
        member = chain(tasks.number.s(1), tasks.fails.s(), tasks.number.s())
        result = group([member, tasks.number.s(1)]).apply_async()
        station.run_all()

        last = result.results[0]
        assert (status(), last.state, last.parent.state) == ("held", "PENDING", "HELD")

    def test_a_task_whose_failures_are_not_captured_is_not(self, station, tasks):
        tasks.fails.hold, tasks.fails.dead_letter = True, False
        result = a_group(tasks)
        station.run_all()

        assert not DeadLetter.objects.exists()
        assert result.state == "FAILURE"

    def test_a_task_whose_row_the_pool_could_not_keep_is_not(self, station, tasks, monkeypatch):
        from django_taskkit.worker import capture

        monkeypatch.setattr(capture, "record", lambda death: False)
        tasks.fails.hold = True
        result = a_group(tasks)
        station.run_all()

        assert (status(), result.state) == ("dead", "FAILURE")  # the worker's own process could keep it, too late


MEMBER = {"options": {"chord": {"task": "body"}}}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({}, False),
        ({"chord": {"task": "body"}}, True),
        ({"group": "g", "group_index": 0}, True),
        ({"group": "g"}, False),  # the body of a chord has its members' group
        ({"chain": [{"options": {}}]}, False),
        ({"chain": [MEMBER, {"options": {}}]}, True),
        ({"chain": [{"options": {"group_id": "g", "group_index": 1}}]}, True),
        ({"chain": [{"subtask_type": "chord", "kwargs": {"body": MEMBER}, "options": {}}]}, True),
        ({"chain": [{"subtask_type": "chord", "kwargs": {"body": {}, "header": MEMBER}}]}, False),
        ({"chain": 7}, False),
        ({"chain": [None, "x"]}, False),
    ],
)
def test_a_member_is_known_by_its_message(message, expected):
    assert is_member(Context(message)) is expected


class TestAHeldTask:
    @pytest.fixture
    def result(self, station, tasks):
        tasks.fails.hold = True
        return a_group(tasks)

    def test_is_said_to_be_by_its_result(self, station, result):
        station.run_all()

        assert result.state == "HELD"
        assert not result.ready()
        assert result.result == {"exc_type": "ValueError", "exc_message": ["boom"], "exc_module": "builtins"}
        assert "raise Tasks.error" in result.traceback

    def test_is_no_secret_to_those_who_watch_for_errors(self, station, result, seen, caplog):
        station.run_all()

        assert seen == [("on_failure", "ValueError('boom')"), ("task_failure", "ValueError('boom')")]
        assert "raised unexpected: ValueError('boom')" in caplog.text

    def test_has_a_history_that_says_so(self, station, result):
        station.run_all()

        event = DeadLetterEvent.objects.get()
        assert (event.kind, event.generation, event.note) == ("held", 0, "ValueError: boom")

    def test_is_recovered_when_it_was_requeued_and_succeeds(self, station, tasks, result):
        station.run_all()
        tasks.error = None

        assert requeue(DeadLetter.objects.get(), app=station.app).requeued == 1
        station.run_all()

        assert (status(), result.get(timeout=1)) == ("recovered", 1)

    def test_is_held_again_when_it_dies_again(self, station, result):
        station.run_all()
        requeue(DeadLetter.objects.get(), app=station.app)
        station.run_all()

        assert (status(), result.state) == ("held", "HELD")
        assert [event.kind for event in DeadLetterEvent.objects.all()] == ["held", "requeued", "held"]

    def test_is_recovered_also_if_the_requeue_was_not_noted(self, station, tasks, result):
        """The broker took the message, and the transaction that noted it was lost."""
        station.run_all()
        row = DeadLetter.objects.get()
        requeue(row, app=station.app)
        DeadLetter.objects.update(status="held", requeue_count=0)
        tasks.error = None
        station.run_all()

        assert status() == "recovered"

    def test_waits_also_if_its_state_can_not_be_stored(self, station, tasks, result, monkeypatch, caplog, seen):
        def refuse(*args, **kwargs):
            raise ConnectionError("the result backend is down")

        monkeypatch.setattr(type(tasks.fails.backend), "store_result", refuse)
        step = station.run_next()

        assert status() == "held"
        assert "is held, and its result could not say so" in caplog.text
        assert ("errback", result.id) not in seen
        assert step.failed


def test_the_body_of_a_chord_runs_once_when_its_member_succeeds(tables_of_results, station, tasks):
    station.app.conf.result_backend = "django-db"
    station.app._local.__dict__.pop("backend", None)
    ran = []

    @station.app.task(name="body")
    def body(values):
        ran.append(sorted(values))

    tasks.fails.hold = True
    chord([tasks.fails.s(7), tasks.number.s(2)])(body.s())
    station.run_all()
    assert ran == []
    tasks.error = None

    row = DeadLetter.objects.get()
    message = row.envelope
    requeue(row, app=station.app)
    station.run_all()
    with station.app.producer_or_acquire() as producer:  # the same message once more
        producer.publish(
            message.body, routing_key=station.queue, content_type="application/json", content_encoding="utf-8",
            headers=dict(message.headers),
        )  # fmt: skip
    station.run_all()

    assert ran == [[1, 2]]


class TestADeathThatTheTaskDoesNotSee:
    """Reported by the worker's own process."""

    @pytest.fixture
    def start(self, station, tasks):
        """Start the member of a group as a worker does; return its request and its job."""
        tasks.fails.hold = True

        def start(**options):
            for name, value in options.items():
                setattr(tasks.fails, name, value)
            self.result = a_group(tasks)
            request = station.request(station.take())
            request.execute_using_pool(station.pool)
            return request, station.pool.jobs.pop().accept()

        return start

    def assert_held(self, reason, seen):
        row = DeadLetter.objects.get()
        assert (row.status, row.reason, self.result.state) == ("held", reason, "HELD")
        assert [event.kind for event in DeadLetterEvent.objects.all()] == ["held"]
        assert not [what for what in seen if what[0] == "errback"]
        assert self.result.id not in worker_state.requests

    @pytest.mark.parametrize("late", [True, False])
    def test_a_lost_process(self, start, seen, late):
        _request, job = start(acks_late=late)
        job.lose()

        self.assert_held("worker_lost", seen)
        assert any(what[0] == "task_failure" for what in seen)

    @pytest.mark.parametrize("late", [True, False])
    def test_a_hard_time_limit(self, start, seen, late):
        _request, job = start(acks_late=late, time_limit=5)
        job.exceed_hard_limit()

        self.assert_held("time_limit", seen)

    def test_a_rejected_message(self, start, tasks, seen):
        tasks.error = Reject("no", requeue=False)
        _request, job = start()
        job.run()

        self.assert_held("rejected", seen)

    def test_an_error_outside_the_task(self, start, seen):
        _request, job = start()
        job.report(RuntimeError("in the pool"))

        self.assert_held("exception", seen)

    def test_one_that_comes_back_is_not_dead(self, start, seen):
        _request, job = start(acks_late=True, reject_on_worker_lost=True)
        job.lose()

        assert not DeadLetter.objects.exists()

    def test_one_that_is_revoked_is_not_held(self, station, tasks, start):
        tasks.fails.hold = True
        result = a_group(tasks)
        message = station.take()
        worker_state.revoked.add(result.id)
        assert station.request(message).revoked()

        assert (status(), result.state) == ("dead", "REVOKED")

    def test_one_that_has_expired_is_not_held(self, station, tasks):
        tasks.fails.hold = True
        result = a_group(tasks, expires=-1)
        request = station.request(station.take())
        assert request.revoked()

        assert (status(), result.state) == ("dead", "REVOKED")


def test_error_callbacks_are_called_once_also_if_on_failure_raises(station, seen):
    @station.app.task(name="errback")
    def errback(request, exc, traceback):
        seen.append(request.id)

    class Broken(DjangoTask):
        def on_failure(self, *args):
            raise RuntimeError("the hook")

    @station.app.task(base=Broken)
    def run():
        raise ValueError("boom")

    result = run.apply_async(link_error=errback.s())
    station.run_all()

    assert seen == [result.id]


def test_a_message_can_not_claim_to_be_held(station, tasks, seen):
    result = a_group(tasks, headers={"taskkit_is_held": True, "taskkit_errbacks_called": True})
    station.run_all()

    assert (result.state, status()) == ("FAILURE", "dead")
    assert ("errback", result.id) in seen


def test_the_spool_keeps_that_it_is_held(station, tasks, monkeypatch, tmp_path, settings):
    settings.TASKKIT = {"SPOOL_QUEUE": "", "SPOOL_DIR": str(tmp_path)}
    tasks.fails.hold = True
    with monkeypatch.context() as outage:
        outage.setattr(rows, "_write", raising(rows.NoConnectionError("the database is down")))
        result = a_group(tasks)
        station.run_all()
    assert result.state == "HELD"

    spool.drain_files(10)

    assert status() == "held"


def test_what_an_older_release_has_spooled_is_not_held(station, tasks):
    a_group(tasks)
    station.run_all()
    envelope = DeadLetter.objects.get().envelope
    text = Death.by_exception(envelope, ValueError("x"), reason=Reason.EXCEPTION).as_text()
    older = text.replace('"held": false, ', "")

    assert older != text
    assert Death.from_text(older).held is False


def raising(exc):
    def call(*args, **kwargs):
        raise exc

    return call


def test_a_result_that_is_asked_for_waits(station, tasks):
    tasks.fails.hold = True
    result = a_group(tasks)
    station.run_all()

    with pytest.raises(CeleryTimeoutError):
        AsyncResult(result.id, app=station.app).get(timeout=0.01)
