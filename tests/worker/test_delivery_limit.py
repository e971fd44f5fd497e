"""How often a message was started: counted for those that are delivered again, free for all others."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta

import pytest
from celery.exceptions import Ignore, Reject, TaskRevokedError
from celery.worker import state as worker_state
from django.db import InterfaceError, OperationalError, connection, connections, router, transaction
from django.utils import timezone

from django_taskkit.base_tasks import DeadLetterTask
from django_taskkit.dlq.models import Redelivery
from django_taskkit.worker import delivery_limit
from django_taskkit.worker.delivery_limit import count_start, forget_starts, limit_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def receive(station):
    """Send a task and receive it."""
    names = itertools.count()

    def receive(redelivered=True, message_headers=None, **options):
        @station.app.task(name=f"task-{next(names)}", **{"acks_late": True, **options.pop("task", {})})
        def run(*args):
            return None

        run.apply_async(**options)
        message = station.take()
        message.headers.update(message_headers or {})
        message.delivery_info["redelivered"] = redelivered
        return station.request(message)

    return receive


def nothing():
    return None


def raising(exc):
    def body():
        raise exc

    return body


class TestTheLimit:
    def test_is_the_projects(self, receive, settings):
        assert limit_of(receive()) == 3
        settings.TASKKIT = {"DELIVERY_LIMIT": 7}
        assert limit_of(receive()) == 7
        settings.TASKKIT = {"DELIVERY_LIMIT": None}
        assert limit_of(receive()) is None

    def test_of_a_task_wins(self, receive, settings):
        settings.TASKKIT = {"DELIVERY_LIMIT": 7}

        assert limit_of(receive(task={"delivery_limit": 2})) == 2
        assert limit_of(receive(task={"delivery_limit": 0})) is None
        assert limit_of(receive(task={"base": DeadLetterTask, "delivery_limit": 5})) == 5
        assert limit_of(receive(task={"base": DeadLetterTask})) == 7

    def test_does_not_touch_what_is_acknowledged_early(self, receive):
        assert limit_of(receive(task={"acks_late": False, "delivery_limit": 2})) is None


class TestCounting:
    def test_a_first_delivery_costs_no_query(self, station, receive, django_assert_num_queries):
        request = receive(redelivered=False)

        with django_assert_num_queries(0):
            request.execute_using_pool(station.pool)

        assert not Redelivery.objects.exists()

    def test_a_redelivery_without_a_limit_costs_no_query(self, station, receive, django_assert_num_queries):
        request = receive(task={"delivery_limit": 0})

        with django_assert_num_queries(0):
            request.execute_using_pool(station.pool)

    def test_the_first_start_is_known_without_having_been_counted(self, receive):
        request = receive()

        assert [count_start(request) for _ in range(3)] == [2, 3, 4]
        assert Redelivery.objects.get().starts == 4

    def test_two_messages_are_counted_apart(self, receive):
        assert count_start(receive()) == 2
        assert count_start(receive()) == 2

    @pytest.mark.parametrize("header", [{"retries": 1}, {"taskkit_generation": 1}])
    def test_a_retry_and_a_requeue_are_new_messages(self, receive, header):
        assert count_start(receive(task_id="same")) == 2
        assert count_start(receive(task_id="same")) == 3
        assert count_start(receive(task_id="same", message_headers=header)) == 2

    def test_long_ids_are_counted_apart(self, receive):
        long = "x" * 300

        assert count_start(receive(task_id=f"{long}1")) == 2
        assert count_start(receive(task_id=f"{long}2")) == 2
        assert count_start(receive(task_id=f"{long}1")) == 3

    def test_odd_headers_are_no_hindrance(self, receive):
        assert count_start(receive(message_headers={"retries": "many", "taskkit_generation": ["x"]})) == 2


class TestTheDatabaseIsDown:
    @pytest.fixture(autouse=True)
    def down(self, monkeypatch):
        monkeypatch.setattr(router, "db_for_write", lambda model, **hints: "no-such-database")

    def test_a_message_runs_in_doubt(self, receive, caplog):
        assert count_start(receive()) == 1
        assert "can't be counted" in caplog.text

    def test_a_quorum_queue_has_counted_itself(self, receive):
        assert count_start(receive(message_headers={"x-delivery-count": 4})) == 5

    @pytest.mark.parametrize("odd", ["4", None, [4]])
    def test_an_odd_count_is_none(self, receive, odd):
        assert count_start(receive(message_headers={"x-delivery-count": odd})) == 1


class TestTheDatabaseIsInTrouble:
    """Real trouble of one statement, and of one connection."""

    @pytest.fixture
    def failing(self, receive):
        """Let statements on the table fail, and count them."""

        @contextmanager
        def failing(*errors):
            left = list(errors)
            asked = []

            def fail(execute, sql, params, many, context):
                if "redelivery" in sql:
                    asked.append(sql)
                    if left:
                        raise left.pop(0)
                return execute(sql, params, many, context)

            with connection.execute_wrapper(fail):
                yield asked

        return failing

    @pytest.mark.parametrize("error", [OperationalError(1213, "Deadlock found"), InterfaceError("connection closed")])
    def test_a_deadlock_is_tried_again(self, receive, failing, error, caplog):
        with failing(error):
            assert count_start(receive()) == 2

        assert Redelivery.objects.get().starts == 2
        assert caplog.text == ""

    def test_it_is_tried_again_once(self, receive, failing):
        error = OperationalError("could not serialize access")

        with failing(error, error, error) as asked:
            assert count_start(receive()) == 1

        assert len(asked) == 2

    def test_what_lasts_is_said_once_and_not_tried_for_each_message(self, receive, failing, caplog):
        error = OperationalError("the database is gone")
        with failing(*[error] * 10) as asked:
            for _ in range(5):
                count_start(receive())

        assert len(asked) == 2
        assert caplog.text.count("can't be counted") == 1

    def test_counting_goes_on_after_the_outage(self, receive, failing, caplog):
        caplog.set_level("INFO", "django_taskkit")
        error = OperationalError("the database is gone")
        with failing(error, error):
            count_start(receive())

        delivery_limit.database_pause.end()

        assert count_start(receive(task_id="later")) == 2
        assert "can be counted again" in caplog.text


class TestTheEndOfAMessage:
    @pytest.fixture
    def run(self, station):
        """Run a task that is delivered for the ``number``-th time, each of whose starts was counted."""

        def run(body, number=2, **options):
            task = station.app.task(name="ending", **{"acks_late": True, **options})(body)
            task.apply_async(task_id="nightly")
            message = station.take()
            message.delivery_info["redelivered"] = number > 1
            if number > 2:
                Redelivery.objects.create(key="nightly:0:0", starts=number - 1, at=timezone.now())
            return station.run(message)

        return run

    @staticmethod
    def retried(self):
        raise self.retry(countdown=0)

    @pytest.mark.parametrize(
        "body", [nothing, raising(ValueError("no")), raising(Reject("no", requeue=False)), raising(Ignore())]
    )
    def test_its_starts_are_forgotten(self, run, body):
        run(body, number=3)

        assert not Redelivery.objects.exists()

    def test_by_a_retry_too(self, run):
        run(self.retried, bind=True)

        assert not Redelivery.objects.exists()

    def test_a_revoked_one_too(self, station, receive):
        request = receive()
        request._count_start()
        request.terminate(station.pool)
        worker_state.revoked.add(request.id)

        with pytest.raises(TaskRevokedError):
            request.execute_using_pool(station.pool)

        assert not Redelivery.objects.exists()

    def test_one_that_goes_back_is_remembered(self, run):
        run(raising(Reject("later", requeue=True)))

        assert Redelivery.objects.get().starts == 2

    def test_one_whose_worker_is_lost_is_remembered(self, station, receive):
        request = receive(task={"reject_on_worker_lost": True})
        request.execute_using_pool(station.pool)
        station.pool.jobs.pop().accept().lose()

        assert Redelivery.objects.get().starts == 2

    def test_starts_of_a_task_id_that_is_used_again_do_not_add_up(self, run):
        for _night in range(5):
            step = run(nothing)

            assert step.request.taskkit_starts == 2
            assert step.failed == 0

    def test_of_one_that_was_delivered_once_costs_no_query(self, run, django_assert_num_queries):
        with django_assert_num_queries(0):
            run(nothing, number=1)

    def test_of_one_that_may_start_for_ever_costs_no_query(self, run, django_assert_num_queries):
        with django_assert_num_queries(0):
            run(nothing, delivery_limit=0)

    def test_with_the_database_down_is_an_end_all_the_same(self, run, monkeypatch, caplog):
        def body():
            monkeypatch.setattr(router, "db_for_write", lambda model, **hints: "no-such-database")

        step = run(body)
        monkeypatch.undo()

        assert step.message.acknowledged
        assert step.request.id not in worker_state.requests
        assert Redelivery.objects.exists()


class TestForgetting:
    def test_takes_old_counts_alone(self, receive):
        count_start(receive(task_id="old"))
        Redelivery.objects.update(at=timezone.now() - timedelta(days=8))
        count_start(receive(task_id="new"))

        assert forget_starts(timedelta(days=7)) == 1
        assert [row.key for row in Redelivery.objects.all()] == ["new:0:0"]

    def test_takes_nothing_from_an_empty_table(self):
        assert forget_starts(timedelta(days=7)) == 0

    def test_does_not_take_what_was_started_lately(self, receive):
        count_start(receive(task_id="busy"))
        Redelivery.objects.update(at=timezone.now() - timedelta(days=8))
        count_start(receive(task_id="busy"))

        assert forget_starts(timedelta(days=7)) == 0


@pytest.mark.django_db(transaction=True)
class TestTheConnection:
    def test_is_not_kept_by_the_worker(self, station, receive):
        receive().execute_using_pool(station.pool)

        assert connections["default"].connection is None

    def test_workers_that_count_at_once_count_all(self, receive):
        request = receive()

        def count(_number):
            try:
                return count_start(request)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(4) as executor:
            counted = list(executor.map(count, range(12)))

        assert sorted(counted) == list(range(2, 14))

    def test_a_lock_that_another_holds_is_not_waited_for_without_a_bound(self, receive, monkeypatch):
        """SQLite is bounded by its own timeout."""
        if connection.vendor == "sqlite":
            pytest.skip("a file, whose driver bounds the wait")
        monkeypatch.setattr(delivery_limit, "COUNT_TIMEOUT", 0.5)
        request = receive()
        count_start(request)
        before = time.monotonic()

        with transaction.atomic():
            Redelivery.objects.update(starts=7)
            with ThreadPoolExecutor(1) as executor:
                counted = executor.submit(count_start, request).result()

        assert counted == 1
        assert time.monotonic() - before < 20
        assert delivery_limit.database_pause.on
