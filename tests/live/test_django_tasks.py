"""Django's tasks on real brokers: order, results, deaths, requeues."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import harness
import pytest
from django.test import override_settings
from django.utils import timezone

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter

pytest.importorskip("django.tasks")

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True),
]


@pytest.fixture
def shop(producer):
    import importlib

    from django_taskkit.backends import endings

    producer.conf.task_queue_max_priority = 9
    with override_settings(
        TASKS={"default": {"BACKEND": "django_taskkit.backends.CeleryBackend", "QUEUES": [], "OPTIONS": {}}}
    ):
        yield importlib.import_module("django_tasks_shop")
    endings.uninstall()


@pytest.fixture
def start(start_worker, broker, django_env):
    env = {**django_env, "DJANGO_SETTINGS_MODULE": "django_tasks_settings"}
    return lambda **options: start_worker("django_tasks_app", broker, env=env, **options)


def finished(result, seconds=60):
    def is_finished():
        result.refresh()
        return result.is_finished

    harness.wait_until(is_finished, seconds, f"{result.task.name} is finished")
    return result


def test_the_most_urgent_runs_first_and_a_time_is_waited_for(shop, start, tmp_path):
    path = tmp_path / "lines"
    results = [shop.note.using(priority=priority).enqueue(str(path), str(priority)) for priority in (-100, 0, 40, 100)]

    worker = start(concurrency=1, pool="solo")

    for result in results:
        assert finished(result).worker_ids == [f"{worker.name}@localhost"]
    assert path.read_text().split() == ["100", "40", "0", "-100"]

    due = timezone.now() + timedelta(seconds=5)
    later = shop.note.using(run_after=due).enqueue(str(path), "later")
    assert finished(later).started_at >= due


def test_a_failure_is_a_dead_letter_and_a_requeue_makes_the_same_result_succeed(shop, start, tmp_path):
    flag = tmp_path / "flag"
    flag.touch()
    start(concurrency=2)
    result = shop.fail_while.enqueue(str(flag))
    told = shop.tell.enqueue("me")

    assert finished(told).return_value == ["me", 1, told.id]
    assert finished(result).errors[0].exception_class is ValueError
    letter = DeadLetter.objects.get()
    assert letter.task_id == result.id
    flag.unlink()

    assert requeue(letter).requeued == 1
    harness.wait_until(lambda: result.refresh() or result.status == "SUCCESSFUL", 60, "it has succeeded")
    assert (result.return_value, result.attempts, len(result.errors)) == ("done", 2, 1)
    harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").exists(), 30, "it is recovered")


def test_a_task_that_kills_its_process_fails_in_the_end(shop, start, tmp_path):
    path = Path(tmp_path, "lines")
    start(concurrency=1)

    result = finished(shop.end_process.enqueue(str(path)), 120)

    assert str(result.status) == "FAILED"
    assert DeadLetter.objects.get().reason in ("worker_lost", "delivery_limit")
    assert len(path.read_text().split()) == result.attempts
