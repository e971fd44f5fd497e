"""Terminal failures of any task become one dead letter, before Celery stores the failure."""

import logging

import pytest
from celery.backends.redis import RedisBackend
from celery.contrib.django.task import DjangoTask
from celery.exceptions import Ignore
from celery.worker.strategy import proto1_to_proto2
from django.db import router

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter, DeadLetterEvent
from django_taskkit.signals import task_dead_lettered

pytestmark = pytest.mark.django_db


class BrokenStr(Exception):
    def __str__(self):
        raise RuntimeError


class Unpicklable(Exception):
    def __init__(self, *, needed):
        super().__init__("can't be rebuilt")
        self.needed = needed
        self.lambda_ = lambda: None


def plain(station, exc, **options):
    @station.app.task(name="plain", **options)
    def run(*args, **kwargs):
        raise exc

    return run


def test_a_plain_task_that_fails_is_a_dead_letter_with_its_whole_message(station, settings):
    settings.TASKKIT = {"RELEASE": "1.4.2"}
    fail = plain(station, ValueError("no such order"))

    result = fail.apply_async((7,), {"a": [1]}, headers={"tenant": "t1"}, priority=3)
    step = station.run_next()

    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.task_name, letter.status) == (result.id, "plain", "dead")
    assert (letter.reason, letter.attempts, letter.requeue_count) == ("exception", 1, 0)
    assert (letter.exception_class, letter.exception_message) == ("ValueError", "no such order")
    assert letter.traceback.startswith("Traceback (most recent call last):")
    assert "in run\n    raise exc" in letter.traceback
    assert (letter.queue, letter.routing_key, letter.release) == (station.queue, station.queue, "1.4.2")
    assert letter.root_id == result.id
    assert bytes(letter.body) == step.message.body
    assert letter.headers == step.message.headers
    assert letter.headers["tenant"] == "t1"
    assert letter.properties["priority"] == 3
    assert result.state == "FAILURE"


def test_the_history_begins_with_the_death(station):
    plain(station, ValueError("no such order")).delay()
    station.run_next()

    event = DeadLetterEvent.objects.get()
    assert (event.kind, event.generation, event.by, event.note) == (
        "died",
        0,
        "",
        "ValueError: no such order",
    )


def test_arguments_that_the_task_changes_are_stored_as_they_came(station):
    @station.app.task
    def greedy(items):
        items.clear()
        raise ValueError

    greedy.delay([1, 2])
    station.run_next()

    assert DeadLetter.objects.get().envelope.payload()[0] == [[1, 2]]


def test_parent_root_and_group_are_kept(station):
    @station.app.task
    def child():
        raise ValueError

    child.apply_async(root_id="the-root", parent_id="the-parent", group_id="the-group")
    station.run_next()

    letter = DeadLetter.objects.get()
    assert (letter.root_id, letter.parent_id, letter.group_id) == ("the-root", "the-parent", "the-group")


def test_a_success_costs_no_query(station, django_assert_num_queries):
    @station.app.task
    def fine():
        return 1

    fine.delay()

    with django_assert_num_queries(0):
        station.run_next()


def test_the_row_is_there_when_the_result_backend_is_down(station):
    """Celery calls neither on_failure nor task_failure then."""
    fail = plain(station, ValueError("the first cause"))
    fail.apply_async(task_id="lost-backend")
    station.app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}
    fail.backend = RedisBackend(app=station.app, url="redis://127.0.0.1:1/0")

    step = station.run_next()

    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.exception_message) == ("lost-backend", "the first cause")
    assert step.failed


def test_the_row_is_written_before_the_failure_is_stored(station, monkeypatch):
    seen = []
    fail = plain(station, ValueError("x"))
    backend = station.app.backend
    stored = type(backend).mark_as_failure

    def mark_as_failure(self, *args, **kwargs):
        seen.append(DeadLetter.objects.count())
        return stored(self, *args, **kwargs)

    monkeypatch.setattr(type(backend), "mark_as_failure", mark_as_failure)
    fail.delay()
    station.run_next()

    assert seen == [1]


def test_a_task_can_opt_out(station):
    plain(station, ValueError("x"), dead_letter=False).delay()
    station.run_next()

    assert not DeadLetter.objects.exists()


def test_capture_can_be_opt_in(station, settings):
    settings.TASKKIT = {"CAPTURE": "opt_in"}
    plain(station, ValueError("x")).delay()

    @station.app.task(base=DeadLetterTask)
    def wanted():
        raise ValueError

    wanted.delay()
    station.run_all()

    assert [letter.task_name for letter in DeadLetter.objects.all()] == [wanted.name]


def test_celerys_own_autoretry_keeps_the_message_out_of_the_headers(station):
    @station.app.task(autoretry_for=(ValueError,), max_retries=2, retry_backoff=1)
    def celerys():
        raise ValueError

    celerys.delay()
    assert station.run_all() == 3

    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.attempts) == ("retries_exhausted", 3)
    assert "taskkit_message" not in letter.headers


def test_the_signal_tells_the_death_after_it_was_written(station):
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append((event, DeadLetter.objects.filter(pk=event.dead_letter_id).exists()))

    task_dead_lettered.connect(receiver)
    plain(station, ValueError("x")).delay()
    station.run_next()
    task_dead_lettered.disconnect(receiver)

    [(event, written)] = seen
    assert written
    assert (event.task_name, event.reason, event.attempts, event.exception_class) == (
        "plain",
        "exception",
        1,
        "ValueError",
    )


def test_a_receiver_that_raises_harms_nobody(station, caplog):
    def broken(sender, **kwargs):
        raise RuntimeError("receiver")

    task_dead_lettered.connect(broken)
    result = plain(station, ValueError("x")).delay()
    station.run_next()
    task_dead_lettered.disconnect(broken)

    assert DeadLetter.objects.count() == 1
    assert result.state == "FAILURE"


class TestTheResultBackendFails:
    """Celery then reports as a failure what is none."""

    @pytest.fixture
    def down(self, station):
        return RedisBackend(app=station.app, url="redis://127.0.0.1:1/0")

    @pytest.fixture(autouse=True)
    def _at_once(self, station):
        station.app.conf.result_backend_transport_options = {"retry_policy": {"max_retries": 0}}

    @pytest.mark.parametrize("base", [DjangoTask, BaseTaskWithRetry])
    def test_while_a_retry_is_noted_the_task_is_not_dead(self, station, down, base):
        @station.app.task(base=base, bind=True)
        def retrying(self):
            if self.request.retries == 0:
                raise self.retry(countdown=1)

        retrying.delay()
        retrying.backend = down
        station.run_next()
        retrying.backend = station.app.backend
        station.run_all()

        assert not DeadLetter.objects.exists()

    def test_while_a_result_is_stored_the_letter_says_that_the_task_had_succeeded(self, station, down):
        """A requeue would repeat what it did."""

        @station.app.task
        def fine(): ...

        fine.delay()
        fine.backend = down
        station.run_next()

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.body_ran) == ("result_lost", True)


def test_a_result_that_can_not_be_stored_is_no_failure_of_the_task(station):
    @station.app.task
    def odd():
        return object()

    odd.delay()
    station.run_next()

    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.body_ran) == ("result_lost", True)


class TestARequeuedTaskThatGoesOnUnderItsId:
    """Whatever it does, the row learns how it ended."""

    @pytest.fixture
    def requeued(self, station):
        """Let a task die, put it back, and return it with what it does from now on."""
        act = []

        @station.app.task(bind=True, name="changing")
        def changing(self):
            if not act:
                raise ValueError("first")
            return act[-1](self)

        changing.delay()
        station.run_all()
        requeue(DeadLetter.objects.get())
        return act

    def test_replaced_by_a_task_that_succeeds(self, station, requeued):
        @station.app.task
        def other(): ...

        requeued.append(lambda task: task.replace(other.si()))
        station.run_all()

        assert DeadLetter.objects.get().status == "recovered"

    def test_replaced_by_a_task_that_dies(self, station, requeued):
        @station.app.task
        def other():
            raise KeyError("second")

        requeued.append(lambda task: task.replace(other.si()))
        station.run_all()

        letter = DeadLetter.objects.get()
        assert (letter.status, letter.exception_class, letter.requeue_count) == ("dead", "KeyError", 1)

    def test_retried_with_headers_of_its_own(self, station, requeued):
        def retry_once(task):
            if task.request.retries == 0:
                raise task.retry(countdown=1, headers={"own": 1})

        requeued.append(retry_once)
        station.run_all()

        assert DeadLetter.objects.get().status == "recovered"

    def test_retried_without_an_end_of_this_run(self, station, requeued):
        """``throw=False``: this run succeeds, and the one after it dies."""

        def retry_on_the_side(task):
            if task.request.retries:
                raise KeyError("second")
            task.retry(countdown=1, throw=False)

        requeued.append(retry_on_the_side)
        station.run_all()

        assert DeadLetter.objects.get().exception_class == "KeyError"

    def test_ignored(self, station, requeued):
        def ignore(task):
            raise Ignore

        requeued.append(ignore)
        station.run_all()

        letter = DeadLetter.objects.get()
        assert letter.status == "recovered"
        assert letter.events.get(kind="recovered").note == "Ignore"


def test_a_message_of_celerys_first_protocol_has_its_name(station):
    station.app.conf.task_protocol = 1
    result = plain(station, ValueError("x")).delay(7)
    message = station.take()
    body, headers, decoded, utc = proto1_to_proto2(message, message.payload)
    station.run(message, body=body, headers=headers, decoded=decoded, utc=utc)

    letter = DeadLetter.objects.get()
    assert (letter.task_name, letter.task_id) == ("plain", result.id)
    assert bytes(letter.body) == message.body


class TestWhatIsHardToStore:
    @pytest.mark.parametrize(
        "exc", [BrokenStr(), Unpicklable(needed=1), ValueError("a\x00b\ud800"), ValueError(b"\xff")]
    )
    def test_odd_exceptions_are_described(self, station, exc):
        plain(station, exc).delay()
        station.run_next()

        letter = DeadLetter.objects.get()
        assert type(exc).__name__ in letter.exception_class
        assert letter.exception_message

    def test_five_megabytes_of_arguments_are_kept_whole(self, station):
        plain(station, ValueError("x")).delay("x" * 5_000_000)
        station.run_next()

        assert len(DeadLetter.objects.get().body) > 5_000_000

    def test_a_message_of_megabytes_is_shortened_and_says_so(self, station):
        plain(station, ValueError("x" * 5_000_000)).delay()
        station.run_next()

        letter = DeadLetter.objects.get()
        assert len(letter.exception_message) < 11_000
        assert "4990000 characters left out" in letter.exception_message
        assert len(letter.traceback) < 101_000
        assert "characters left out" in letter.traceback

    def test_nul_bytes_and_lone_surrogates_in_arguments_and_headers(self, station):
        plain(station, ValueError("x")).apply_async(("a\x00b",), {"k": "\ud800"}, headers={"odd": "\x00\ud800"})
        station.run_next()

        letter = DeadLetter.objects.get()
        assert letter.headers["odd"] == "\x00\ud800"
        assert letter.envelope.payload()[:2] == (["a\x00b"], {"k": "\ud800"})

    def test_a_pickled_body_is_kept_and_not_opened(self, station):
        plain(station, ValueError("x")).apply_async(({1, 2},), serializer="pickle")
        step = station.run_next()

        letter = DeadLetter.objects.get()
        assert letter.content_type == "application/x-python-serialize"
        assert bytes(letter.body) == step.message.body

    def test_ids_and_names_longer_than_a_column(self, station):
        @station.app.task(name="n" * 300)
        def long_name():
            raise ValueError

        long_name.apply_async(task_id="i" * 300, root_id="r" * 300)
        station.run_next()

        letter = DeadLetter.objects.get()
        assert len(letter.task_id) == len(letter.task_name) == len(letter.root_id) == 255
        assert letter.envelope.task_id == "i" * 300

    def test_an_endless_recursion(self, station):
        @station.app.task
        def deeper():
            def again():
                again()

            again()

        deeper.delay()
        station.run_next()

        assert DeadLetter.objects.get().exception_class == "RecursionError"


def test_when_the_table_can_not_be_written_the_worker_goes_on_and_the_log_says_so(station, monkeypatch, caplog):
    fail = plain(station, ValueError("x"))
    monkeypatch.setattr(router, "db_for_write", lambda model: "no-such-database")

    with caplog.at_level(logging.WARNING, "django_taskkit"):
        result = fail.delay()
        station.run_next()

    assert result.state == "FAILURE"
    assert f"task plain[{result.id}] died" in caplog.text
