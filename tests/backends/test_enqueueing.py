"""What ``enqueue()`` writes and sends."""

from datetime import datetime, timedelta, timezone

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from django.test import override_settings
from django.utils import timezone as django_timezone

from django_taskkit.models import DeadLetter, DjangoTaskResult, OutboxMessage
from django_taskkit.outbox.relay import Relay

interface = pytest.importorskip("django_taskkit.backends.interface", exc_type=ImportError)

pytestmark = pytest.mark.django_db(transaction=True)


class TestTheResult:
    def test_is_ready_and_in_the_table(self, shop):
        before = django_timezone.now()
        result = shop.send.enqueue("a@b.example", subject="Hi", labels=("x", "y"))

        row = DjangoTaskResult.objects.get()
        assert row.task_id == result.id
        assert (row.task_path, row.backend, row.queue_name) == ("tests.backends.shop.send", "default", "emails")
        assert (row.args, row.kwargs) == (["a@b.example"], {"subject": "Hi", "labels": ["x", "y"]})
        assert result.status == interface.TaskResultStatus.READY
        assert result.args == row.args
        assert before <= result.enqueued_at <= django_timezone.now()
        assert (result.started_at, result.attempts, result.errors, result.worker_ids) == (None, 0, [], [])
        with pytest.raises(ValueError, match="not finished"):
            result.return_value  # noqa: B018

    def test_is_found_by_its_id(self, shop):
        result = shop.send.using(priority=-3).enqueue("a@b.example")

        found = shop.send.get_result(result.id)

        assert found == result
        assert found.task == result.task

    @pytest.mark.parametrize("unknown", ["", "nobody", "\x00", "x" * 1000, "ABC"])
    def test_of_an_id_that_nobody_has_does_not_exist(self, shop, unknown):
        shop.add.enqueue()

        with pytest.raises(interface.TaskResultDoesNotExist):
            shop.add.get_result(unknown)

    def test_of_another_task_is_a_mismatch(self, shop):
        result = shop.add.enqueue()

        with pytest.raises(interface.TaskResultMismatch):
            shop.send.get_result(result.id)

    @pytest.mark.parametrize("path", ["tests.backends.shop.gone", "no_such_app.tasks.send", "tests.backends.shop.ran"])
    def test_of_what_is_no_task_any_more_says_so(self, shop, path):
        result = shop.add.enqueue()
        DjangoTaskResult.objects.update(task_path=path)

        with pytest.raises(interface.TaskResultMismatch, match=path):
            shop.add.get_result(result.id)

    def test_of_a_queue_that_is_not_valid_any_more_is_told_all_the_same(self, shop, tasks_on_celery):
        result = shop.send.enqueue("a@b.example")
        tasks_on_celery(queues=["default"])

        assert interface.task_backends["default"].get_result(result.id).task.queue_name == "emails"

    def test_arguments_that_are_no_json_are_refused(self, shop):
        with pytest.raises(TypeError):
            shop.add.enqueue(object())

        assert not DjangoTaskResult.objects.exists()

    @pytest.mark.parametrize("text", ["\x00", "\ud800", "ä€😀"])
    def test_any_text_can_be_kept(self, shop, text):
        result = shop.send.enqueue(text)

        assert shop.send.get_result(result.id).args == [text]

    def test_is_the_same_to_async_code(self, station, shop):
        async def enqueue_and_look():
            result = await shop.add.aenqueue(1, 2)
            await sync_to_async(station.run_all)()
            found = await shop.add.aget_result(result.id)
            await result.arefresh()
            return result, found

        result, found = async_to_sync(enqueue_and_look)()

        assert result == found
        assert result.return_value == 3


class TestTheMessage:
    def test_has_the_task_s_own_name_and_the_result_s_id(self, station, shop):
        result = shop.add.enqueue(1, 2)

        message = station.take()

        assert message.headers["task"] == "tests.backends.shop.add"
        assert message.headers["id"] == result.id
        assert message.headers["taskkit_django_task"] == "default"
        assert message.payload[:2] == [[1, 2], {}]

    def test_of_the_default_queue_goes_where_celery_routes_it(self, station, shop):
        station.app.conf.task_routes = {"tests.backends.*": {"queue": "lane"}}
        station.queue = "lane"

        shop.add.enqueue()

        assert station.take().headers["task"] == "tests.backends.shop.add"

    def test_of_another_queue_goes_there(self, station, shop):
        station.app.conf.task_routes = {"tests.backends.*": {"queue": "lane"}}
        shop.send.enqueue("a@b.example")

        station.queue = "emails"
        assert station.take() is not None

    def test_has_the_time_before_which_it_does_not_run(self, station, shop):
        when = django_timezone.now() + timedelta(minutes=3)

        result = shop.add.using(run_after=when).enqueue()

        assert datetime.fromisoformat(station.take().headers["eta"]) == when
        assert shop.add.get_result(result.id).task.run_after == when

    def test_of_a_time_that_has_passed_runs_at_once(self, station, shop):
        shop.add.using(run_after=django_timezone.now() - timedelta(minutes=3)).enqueue()

        assert station.take().headers["eta"] is None

    def test_of_a_time_without_a_zone_is_of_django_s(self, station, shop):
        with override_settings(USE_TZ=False, TIME_ZONE="Asia/Ho_Chi_Minh"):
            when = datetime(2099, 1, 1, 12)
            with override_settings(TASKKIT={"LONG_DELAY": 0}):
                result = shop.add.using(run_after=when).enqueue()

            eta = datetime.fromisoformat(station.take().headers["eta"])
            assert eta == datetime(2099, 1, 1, 5, tzinfo=timezone.utc)
            assert shop.add.get_result(result.id).task.run_after == when

    def test_of_a_long_delay_waits_in_the_outbox(self, shop, monkeypatch):
        from django_taskkit.outbox.presence import watch

        monkeypatch.setattr(watch, "is_alive", lambda: True)
        when = django_timezone.now() + timedelta(days=3)
        with override_settings(TASKKIT={"LONG_DELAY": 60}):
            result = shop.add.using(run_after=when).enqueue()

        row = OutboxMessage.objects.get()
        assert (row.task_id, row.task_name) == (result.id, "tests.backends.shop.add")
        assert abs(row.due_at - when) < timedelta(seconds=2)


class TestATaskThatIsNotValid:
    def test_has_a_queue_that_the_backend_does_not_have(self, shop):
        with pytest.raises(interface.InvalidTask, match="nowhere"):
            shop.add.using(queue_name="nowhere")

    @pytest.mark.parametrize("priority", [101, -101, 1.5])
    def test_has_a_priority_that_is_none(self, shop, priority):
        with pytest.raises(interface.InvalidTask, match="priority"):
            shop.add.using(priority=priority)

    def test_is_no_function_of_a_module(self, shop):
        with pytest.raises(interface.InvalidTask, match="module level"):
            interface.Task(func=lambda: None, priority=0, backend="default", queue_name="default", run_after=None)

    def test_has_a_longer_path_than_the_tables_take(self, shop):
        def func(): ...

        func.__qualname__ = "f" * 250

        with pytest.raises(interface.InvalidTask, match="at most 255"):
            interface.Task(func=func, priority=0, backend="default", queue_name="default", run_after=None)


class TestInATransaction:
    def test_the_message_waits_for_the_commit(self, station, shop):
        with transaction.atomic():
            result = shop.add.enqueue()
            assert station.take() is None

        assert station.take().headers["id"] == result.id

    def test_a_rollback_takes_row_and_message_along(self, station, shop):
        with transaction.atomic():
            shop.add.enqueue()
            transaction.set_rollback(True)

        assert not DjangoTaskResult.objects.exists()
        assert station.take() is None

    @pytest.mark.parametrize("options", [{}, {"outbox": True}])
    def test_it_is_announced_when_it_is_committed_and_never_if_it_is_not(self, tasks_on_celery, announced, options):
        shop = tasks_on_celery(**options)
        with transaction.atomic():
            shop.add.enqueue()
            transaction.set_rollback(True)
        assert announced == []

        with transaction.atomic():
            shop.add.enqueue()
            assert announced == []

        assert [name for name, *_ in announced] == ["enqueued"]

    def test_it_is_announced_before_it_is_sent(self, station, shop):
        there = []

        def look(**kwargs):
            there.append(station.take())

        interface.task_enqueued.connect(look)
        try:
            with transaction.atomic():
                shop.add.enqueue()
        finally:
            interface.task_enqueued.disconnect(look)

        assert there == [None]
        assert station.take() is not None

    @pytest.mark.parametrize("options", [{"on_commit": False}, {"outbox": True}])
    def test_without_one_it_is_announced_at_once(self, tasks_on_celery, announced, options):
        tasks_on_celery(**options).add.enqueue()

        assert [name for name, *_ in announced] == ["enqueued"]

    def test_it_does_not_wait_if_told_so(self, station, tasks_on_celery):
        with transaction.atomic():
            tasks_on_celery(on_commit=False).add.enqueue()
            assert station.take() is not None

    @pytest.mark.parametrize("by", ["option", "setting"])
    def test_with_the_outbox_row_and_message_are_in_the_same_one(self, station, tasks_on_celery, by):
        shop = tasks_on_celery(**({"outbox": True} if by == "option" else {}))
        with override_settings(TASKKIT={} if by == "option" else {"OUTBOX": "always"}):
            with transaction.atomic():
                shop.add.enqueue()
                transaction.set_rollback(True)
            assert not DjangoTaskResult.objects.exists()
            assert not OutboxMessage.objects.exists()

            with transaction.atomic():
                result = shop.add.enqueue(1, 2)
                assert OutboxMessage.objects.get().task_id == result.id

        assert station.take() is None
        Relay(station.app).run_once()
        assert station.run_next().failed == 0
        result.refresh()
        assert result.return_value == 3


class TestABrokerThatIsAway:
    @pytest.fixture(autouse=True)
    def away(self, station):
        station.app.conf.update(
            broker_url="redis://127.0.0.1:1", task_publish_retry=True, task_publish_retry_policy={"max_retries": 0}
        )

    def test_leaves_the_message_in_the_outbox(self, shop):
        result = shop.add.enqueue()

        assert OutboxMessage.objects.get().task_id == result.id
        assert result.status == interface.TaskResultStatus.READY

    def test_is_an_error_and_a_failure_where_the_outbox_is_not_wanted(self, tasks_on_celery, announced):
        shop = tasks_on_celery(outbox=False)
        with pytest.raises(Exception, match="."):
            shop.add.enqueue()

        row = DjangoTaskResult.objects.get()
        assert row.status == "FAILED"
        assert row.errors[0]["exception_class_path"] == "kombu.exceptions.OperationalError"
        assert [(name, status) for name, status, _sender in announced] == [
            ("enqueued", "READY"),
            ("finished", "FAILED"),
        ]
        assert not DeadLetter.objects.exists()
