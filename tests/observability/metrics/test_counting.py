"""Each thing is counted once, where it happens."""

import math
import os
import subprocess
import sys
import time
from datetime import timedelta

import pytest
from celery.exceptions import Ignore
from django.db import transaction
from django.utils import timezone

from django_taskkit import signals
from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.dlq import discard, requeue
from django_taskkit.models import DeadLetter, OutboxMessage
from django_taskkit.observability.metrics import counting, labels
from django_taskkit.outbox.relay import Relay

pytestmark = pytest.mark.django_db


@pytest.fixture
def add(station):
    @station.app.task(name="shop.add")
    def add(*numbers):
        return sum(numbers)

    return add


@pytest.fixture
def fail(station):
    """Fails as often as the test says."""
    errors = []

    @station.app.task(name="shop.fail", base=BaseTaskWithRetry, max_retries=2, retry_backoff=0)
    def fail():
        if errors:
            raise errors.pop()

    task = station.app.tasks["shop.fail"]
    task.errors = errors
    return task


def test_a_task_that_succeeds(station, add, counted):
    add.delay(1, 2)
    station.run_next()

    known = {"task": "shop.add", "lane": station.queue}
    assert counted("tasks_sent_total", **known) == 1
    assert counted("tasks_started_total", **known) == 1
    assert counted("tasks_succeeded_total", **known) == 1
    assert counted("task_run_seconds_count", task="shop.add") == 1
    assert counted("task_queue_seconds_count", lane=station.queue) == 1
    assert counted("tasks_retried_total") is None


def test_retries_are_not_sent_tasks(station, fail, counted):
    fail.errors += [ConnectionError()] * 2
    fail.delay()
    station.run_all()

    assert counted("tasks_sent_total") == 1
    assert counted("tasks_started_total") == 3
    assert counted("tasks_retried_total", task="shop.fail", lane=station.queue) == 2
    assert counted("tasks_succeeded_total") == 1
    assert counted("task_run_seconds_count") == 3


def test_a_retry_that_the_worker_sends_for_a_lost_process_is_one(station, add, counted):
    """It has no running task around it; the message says how often it was tried."""
    add.apply_async((1,), retries=1)

    assert counted("tasks_retried_total", task="shop.add") == 1
    assert counted("tasks_sent_total") is None


def test_a_death_a_requeue_and_a_recovery(station, fail, counted):
    fail.errors += [ConnectionError()] * 3
    fail.delay()
    station.run_all()
    requeue(DeadLetter.objects.all())
    station.run_all()

    assert counted("tasks_dead_lettered_total", task="shop.fail", reason="retries_exhausted") == 1
    assert counted("tasks_requeued_total", task="shop.fail") == 1
    assert counted("tasks_recovered_total", task="shop.fail") == 1
    assert counted("tasks_sent_total") == 1
    assert counted("tasks_started_total") == 4


def test_a_dead_letter_that_is_discarded(station, fail, counted):
    fail.errors += [ConnectionError()] * 3
    fail.delay()
    station.run_all()
    discard(DeadLetter.objects.all())

    assert counted("tasks_discarded_total", task="shop.fail") == 1


def test_a_message_of_the_outbox_is_sent_once(station, add, counted, django_capture_on_commit_callbacks):
    with django_capture_on_commit_callbacks(execute=True):
        add.apply_async((1,), outbox=True)
    assert counted("tasks_sent_total", lane=station.queue) == 1
    Relay(station.app).run_once()
    station.run_next()

    assert OutboxMessage.objects.count() == 0
    assert counted("tasks_sent_total") == 1
    assert counted("tasks_succeeded_total") == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_sent_in_a_transaction_is_counted_when_that_is_committed(add, counted):
    with transaction.atomic():
        add.apply_async((1,), outbox=True)
        assert counted("tasks_sent_total") is None
    assert counted("tasks_sent_total", task="shop.add") == OutboxMessage.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_what_is_rolled_back_was_not_sent(add, counted):
    with transaction.atomic():
        add.apply_async((1,), outbox=True)
        transaction.set_rollback(True)

    assert OutboxMessage.objects.count() == 0
    assert counted("tasks_sent_total") is None


@pytest.mark.django_db(transaction=True)
def test_what_the_broker_has_was_sent_whatever_becomes_of_the_transaction(station, add, counted):
    with transaction.atomic():
        add.apply_async((1,), outbox=True)
        add.apply_async((1,))
        assert counted("tasks_sent_total") == 1
        transaction.set_rollback(True)

    assert counted("tasks_sent_total") == station.waiting() == 1


@pytest.mark.django_db(transaction=True)
def test_without_a_transaction_the_outbox_has_it_at_once(add, counted):
    add.apply_async((1,), outbox=True)

    assert counted("tasks_sent_total") == 1


def test_a_result_that_is_not_stored_is_no_success(station, add, counted, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("the backend is down")

    add.delay(1)
    monkeypatch.setattr(add.backend, "store_result", refuse)
    station.run_next()

    assert counted("tasks_succeeded_total") is None
    assert counted("tasks_dead_lettered_total", reason="result_lost") == 1


def test_a_task_that_is_ignored(station, counted):
    @station.app.task(name="shop.ignored")
    def ignored():
        raise Ignore

    ignored.delay()
    station.run_next()

    assert counted("tasks_ignored_total", task="shop.ignored") == 1
    assert counted("tasks_succeeded_total") is None


def test_a_task_that_replaces_itself_sends_another_one(station, add, counted):
    @station.app.task(name="shop.replaced", bind=True)
    def replaced(self):
        raise self.replace(add.si(1))

    station.app.tasks["shop.replaced"].delay()
    station.run_all()

    assert counted("tasks_sent_total", task="shop.replaced") == 1
    assert counted("tasks_sent_total", task="shop.add") == 1
    assert counted("tasks_retried_total") is None
    assert counted("tasks_ignored_total") == 1


def test_a_message_that_is_delivered_again(station, add, counted):
    add.delay(1)
    message = station.take()
    message.delivery_info["redelivered"] = True
    station.run(message)

    assert counted("tasks_redelivered_total", task="shop.add") == 1


def test_an_eager_task_is_not_counted(station, add, counted):
    add.apply((1,))

    assert counted("tasks_started_total") is None
    assert counted("tasks_succeeded_total") is None


def test_the_time_in_the_queue_begins_with_the_eta(station, add, counted):
    add.apply_async((1,), eta=timezone.now() - timedelta(seconds=40))
    message = station.take()
    headers = {**message.headers, "taskkit_sent_at": time.time() - 3600}
    station.run(message, headers=headers)

    assert 40 <= counted("task_queue_seconds_sum") < 300


def test_the_time_in_the_queue_of_a_message_that_says_nothing_is_not_known(station, add, counted):
    add.delay(1)
    message = station.take()
    headers = {name: value for name, value in message.headers.items() if name != "taskkit_sent_at"}
    station.run(message, headers=headers)

    assert counted("task_queue_seconds_count") is None
    assert counted("tasks_succeeded_total") == 1


@pytest.mark.parametrize("sent_at", [math.inf, -math.inf, math.nan, 10**400, True, "yesterday"])
def test_a_time_that_makes_no_sense_is_not_known(station, add, counted, sent_at):
    add.delay(1)
    message = station.take()
    station.run(message, headers={**message.headers, "taskkit_sent_at": sent_at})

    assert counted("task_queue_seconds_count") is None
    assert counted("tasks_succeeded_total") == 1


def test_a_clock_that_is_behind_makes_no_negative_time(station, add, counted):
    add.delay(1)
    message = station.take()
    station.run(message, headers={**message.headers, "taskkit_sent_at": time.time() + 3600})

    assert counted("task_queue_seconds_sum") == 0


def test_a_task_that_is_not_known_here_has_no_series_of_its_own(station, counted):
    for name in ("other.one", "other.two"):
        station.app.send_task(name)

    assert counted("tasks_sent_total", task="unknown") == 2


def test_more_queues_than_anybody_has_are_one_lane(station, add, counted, monkeypatch):
    monkeypatch.setattr(labels, "MOST_LANES", 3)
    for number in range(6):
        add.apply_async((1,), queue=f"user-{number}")

    assert counted("tasks_sent_total", lane="user-0") == 1
    assert counted("tasks_sent_total", lane="unknown") == 3


def test_queues_that_somebody_makes_push_out_no_lane(station, add, counted, settings, monkeypatch):
    monkeypatch.setattr(labels, "MOST_LANES", 3)
    settings.TASKKIT_LANES = {"fast": {"queue": "shop.fast"}, "slow": {"queue": "shop.slow"}}
    labels.forget()
    for name in ("shop.slow", "user-0", "user-1", "user-2", "user-3", "shop.fast"):
        add.apply_async((1,), queue=name)

    assert counted("tasks_sent_total", lane="fast") == counted("tasks_sent_total", lane="slow") == 1
    assert counted("tasks_sent_total", lane="unknown") == 1


def test_a_queue_has_the_name_of_its_lane(station, add, counted, settings):
    settings.TASKKIT_LANES = {"fast": {"queue": station.queue}}
    labels.forget()
    add.delay(1)
    station.run_next()

    assert counted("tasks_sent_total", lane="fast") == 1
    assert counted("tasks_succeeded_total", lane="fast") == 1


def test_metrics_that_fail_are_said_once_and_harm_nobody(station, add, counted, caplog):
    class Broken:
        def add(self, *args):
            raise RuntimeError("full")

        observe = add

    counting.use(Broken(), *counting.counters())
    counting._complained.clear()
    results = [add.delay(number) for number in range(3)]
    station.run_all()

    assert [result.get(timeout=5) for result in results] == [0, 1, 2]
    assert [record.message for record in caplog.records if record.message.startswith("metrics: ")] == [
        "metrics: Broken does not count taskkit_tasks_sent_total",
        "metrics: Broken does not count taskkit_tasks_started_total",
        "metrics: Broken does not count taskkit_task_queue_seconds",
        "metrics: Broken does not count taskkit_tasks_succeeded_total",
        "metrics: Broken does not count taskkit_task_run_seconds",
    ]
    assert counted("tasks_succeeded_total") == counted("task_queue_seconds_count") == 3


def test_a_receiver_that_fails_is_said_once_and_harms_nobody(station, add, counted, monkeypatch, caplog):
    def refuse(request):
        raise RuntimeError("no lane")

    monkeypatch.setattr(labels, "of_request", refuse)
    counting._complained.clear()
    results = [add.delay(number) for number in range(3)]
    station.run_all()

    assert [result.get(timeout=5) for result in results] == [0, 1, 2]
    assert [record.message for record in caplog.records if record.message.startswith("metrics: ")] == [
        "metrics: _on_start counts nothing"
    ]


def test_a_missing_library_is_said_once_and_harms_nobody(station, add, counted, settings, monkeypatch, caplog):
    settings.TASKKIT = {"METRICS": ["prometheus"]}
    monkeypatch.setitem(sys.modules, "django_taskkit.observability.metrics.prometheus", None)
    counting.use()
    results = [add.delay(number) for number in range(3)]
    station.run_all()

    assert [result.get(timeout=5) for result in results] == [0, 1, 2]
    (said,) = [record.message for record in caplog.records if record.message.startswith("metrics: ")]
    assert "pip install 'django-taskkit[prometheus]'" in said


def test_tasks_that_can_not_be_loaded_are_unknown(station, counted, monkeypatch):
    def refuse():
        raise ImportError("no module named 'pandas'")

    monkeypatch.setattr(station.app.loader, "import_default_modules", refuse)

    assert labels.of_task_elsewhere("shop.report") == "unknown"


def test_a_change_of_a_breaker(counted):
    event = signals.BreakerChanged(name="stripe", old="closed", new="open", calls=10, failure_rate=1.0, open_for=30.0)
    signals.breaker_changed.send_robust(sender=type(event), event=event)

    assert counted("breaker_changes_total", dependency="stripe", state="open") == 1


FIRST = """
import sys, threading
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"],
    TASKKIT={"METRICS": ["prometheus"]},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from django_taskkit.observability.metrics import counting

sys.setswitchinterval(1e-6)
for _ in range(100):
    counting.restart()
    together, threads = threading.Barrier(4), []
    for _ in range(4):
        threads.append(threading.Thread(target=lambda: (together.wait(), counting.counters())))
        threads[-1].start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_count_first_at_once_make_one_set_of_metrics():
    env = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run([sys.executable, "-c", FIRST], capture_output=True, text=True, env=env, check=True)

    assert done.stderr == ""
