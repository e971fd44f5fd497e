"""What has become of Django's tasks is forgotten after a time, unless somebody is still to deal with it."""

import logging
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.dlq import old_results
from django_taskkit.dlq.tasks import PURGE_TASK
from django_taskkit.models import DjangoTaskResult
from tests.letters import dead_letter, finished_result

DAY = timedelta(days=1)

pytestmark = pytest.mark.django_db


def left():
    return sorted(DjangoTaskResult.objects.values_list("task_id", flat=True))


def ago(days):
    return timezone.now() - days * DAY


def test_the_age_is_that_of_the_end():
    finished_result("old", ago=31 * DAY)
    finished_result("failed", ago=31 * DAY, status="FAILED")
    finished_result("new", ago=29 * DAY, enqueued_at=ago(90))

    assert old_results.purgeable(ago(30)) == 2
    assert old_results.purge(ago(30)) == 2

    assert left() == ["new"]


@pytest.mark.parametrize("status", ["READY", "RUNNING"])
def test_what_is_still_to_come_stays_however_old_it_is(status):
    finished_result("waits", ago=900 * DAY, status=status, finished_at=None)

    assert old_results.purge(ago(1)) == 0


def test_a_result_whose_letter_is_open_stays():
    for status in ("dead", "held", "requeued", "recovered", "discarded"):
        dead_letter(status, status=status, ago=50 * DAY)
        finished_result(status, ago=50 * DAY, status="FAILED")

    assert old_results.purgeable(ago(30)) == 2
    assert old_results.purge(ago(30)) == 2

    assert left() == ["dead", "held", "requeued"]


def test_rows_go_in_batches_the_oldest_first_also_of_one_moment(monkeypatch):
    monkeypatch.setattr(old_results, "BATCH", 3)
    same = ago(9)
    for number in range(7):
        finished_result(f"r{number}", ago=9 * DAY, finished_at=same)
    for name in ("r1", "r5"):
        dead_letter(name)
    finished_result("oldest", ago=20 * DAY)
    time, done = iter(range(100)), []

    assert old_results.purge(ago(5), seconds=1, clock=lambda: next(time), progress=done.append) == 2
    assert left() == ["r1", "r2", "r3", "r4", "r5", "r6"]
    assert old_results.purge(ago(5), progress=done.append) == 4

    assert max(done) <= 3
    assert left() == ["r1", "r5"]


def test_no_value_is_read():
    finished_result("old", ago=9 * DAY)

    with CaptureQueriesContext(connection) as queries:
        assert old_results.purge(ago(5)) == 1

    assert not [query["sql"] for query in queries if "return_value" in query["sql"]]


def test_the_task_purges_what_the_setting_says(station, settings, caplog):
    finished_result("old", ago=9 * DAY)
    finished_result("new", ago=3 * DAY)
    for days, rest in ((None, ["new", "old"]), (30, ["new", "old"]), (5, ["new"])):
        settings.TASKKIT = {"RETENTION_DAYS": days}

        station.app.tasks[PURGE_TASK].delay()
        with caplog.at_level(logging.INFO, "django_taskkit"):
            step = station.run_next()

        assert (step.failed, left()) == (0, rest)
    assert "deleted 1 results of Django's tasks that finished 5 days ago" in caplog.text
