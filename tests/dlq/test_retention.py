"""What is over and done with goes after a time; what waits never does."""

import logging
import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.dlq import retention
from django_taskkit.dlq.tasks import PURGE_TASK
from django_taskkit.models import DeadLetter, DeadLetterEvent, Redrive, RedriveMember
from tests.letters import dead_letter

DAY = timedelta(days=1)
STATUSES = ("dead", "held", "requeued", "recovered", "discarded")

pytestmark = pytest.mark.django_db


def left():
    return sorted(DeadLetter.objects.values_list("task_id", flat=True))


def ago(days):
    return timezone.now() - days * DAY


def test_what_waits_is_never_deleted():
    for status in STATUSES:
        dead_letter(status, status=status, ago=900 * DAY, closed_ago=800 * DAY)

    assert retention.purge(ago(1)) == 2

    assert left() == ["dead", "held", "requeued"]


def test_the_age_is_that_of_the_last_event_not_of_the_death():
    dead_letter("discarded just now", status="discarded", ago=900 * DAY, closed_ago=DAY)
    dead_letter("discarded long ago", status="discarded", ago=900 * DAY, closed_ago=31 * DAY)
    dead_letter("without events since", status="recovered", ago=31 * DAY)
    dead_letter("died just now", status="recovered", ago=DAY)

    assert retention.purge(ago(30)) == 2

    assert left() == ["died just now", "discarded just now"]


def test_dead_ones_go_only_where_somebody_says_so():
    dead_letter("old", ago=9 * DAY)
    dead_letter("new", ago=DAY)

    assert retention.purge(ago(5), ["dead"]) == 1

    assert left() == ["new"]


@pytest.mark.parametrize("status", ["held", "requeued"])
def test_what_is_still_to_come_cant_be_purged_at_all(status):
    with pytest.raises(ValueError, match=f"rows that are {status} can't be purged"):
        retention.purge(ago(1), ["dead", status])


def test_history_and_membership_of_redrives_go_along():
    gone = dead_letter(status="discarded", ago=9 * DAY, closed_ago=9 * DAY)
    kept = dead_letter("kept", status="discarded", ago=9 * DAY, closed_ago=DAY)
    redrive = Redrive.objects.create(created_at=timezone.now())
    for row in (gone, kept):
        RedriveMember.objects.create(redrive=redrive, dead_letter=row)

    assert retention.purge(ago(5)) == 1

    assert set(DeadLetterEvent.objects.values_list("dead_letter", flat=True)) == {kept.pk}
    assert [member.dead_letter_id for member in redrive.members.all()] == [kept.pk]


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 3)


def test_rows_go_in_batches_the_oldest_first_also_of_one_moment(small_batches):
    same = ago(9)
    for number in range(8):
        dead_letter(f"b{number}", status="discarded", died_at=same)
    dead_letter("oldest", status="discarded", ago=20 * DAY)
    dead_letter("stays", status="discarded", ago=15 * DAY, closed_ago=DAY)
    done = []

    assert retention.purge(ago(5), progress=done.append) == 9

    assert (sum(done), max(done)) == (9, 3)
    assert left() == ["stays"]


def test_it_ends_after_a_time_and_goes_on_the_next(small_batches):
    for number in range(7):
        dead_letter(status="discarded", ago=(9 + number) * DAY)
    time = iter(range(100))

    assert retention.purge(ago(5), seconds=2, clock=lambda: next(time)) == 6
    assert retention.purge(ago(5), seconds=2, clock=lambda: next(time)) == 1


def test_no_body_is_read():
    for _ in range(3):
        dead_letter(status="discarded", ago=9 * DAY)

    with CaptureQueriesContext(connection) as queries:
        assert retention.purge(ago(5)) == 3

    assert not [query["sql"] for query in queries if "body" in query["sql"] or "traceback" in query["sql"]]
    # Letters, events and memberships; on SQLite events are what takes the lock.
    assert len([query for query in queries if query["sql"].startswith("DELETE")]) <= 4


def test_a_row_that_has_died_again_meanwhile_stays_with_its_history():
    row = dead_letter("again", status="recovered", ago=9 * DAY)
    keys = [row.pk]
    DeadLetter.objects.update(status="dead")

    assert retention._delete(keys, "recovered", ago(1), "default") == 0

    assert row.events.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.skipif("not connection.features.has_select_for_update_skip_locked", reason="it has no row locks")
def test_a_row_that_somebody_else_holds_is_left_for_the_next_time():
    row = dead_letter("busy", status="recovered", ago=9 * DAY)
    dead_letter("free", status="recovered", ago=9 * DAY)
    counts = []

    def purge():
        try:
            counts.append(retention.purge(ago(5)))
        finally:
            connection.close()

    with transaction.atomic():
        DeadLetter.objects.select_for_update().get(pk=row.pk)
        thread = threading.Thread(target=purge)
        thread.start()
        thread.join(20)

    assert (counts, left()) == ([1], ["busy"])


@pytest.mark.django_db(transaction=True)
def test_two_purges_at_once_delete_each_row_once(small_batches):
    for _ in range(20):
        dead_letter(status="discarded", ago=9 * DAY)
    counts, errors = [], []

    def purge():
        try:
            counts.append(retention.purge(ago(5)))
        except Exception as exc:
            errors.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=purge) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert errors == []
    assert sum(counts) + retention.purge(ago(5)) == 20
    assert left() == []


def test_the_task_purges_what_the_setting_says(station, settings):
    assert station.app.tasks[PURGE_TASK].ignore_result
    dead_letter("old", status="discarded", ago=9 * DAY)
    dead_letter("new", status="discarded", ago=3 * DAY)
    for days, rest in ((None, ["new", "old"]), (30, ["new", "old"]), (5, ["new"])):
        settings.TASKKIT = {"RETENTION_DAYS": days}

        station.app.tasks[PURGE_TASK].delay()
        step = station.run_next()

        assert (step.failed, left()) == (0, rest)


def test_the_task_warns_in_the_log_of_what_waits(station, settings, caplog):
    settings.TASKKIT = {"DEAD_WARN_COUNT": 1, "DEAD_WARN_AGE_DAYS": 10}
    dead_letter(ago=12 * DAY)
    dead_letter(status="held")

    with caplog.at_level(logging.WARNING, "django_taskkit"):
        station.app.tasks[PURGE_TASK].delay()
        station.run_next()

    assert "More than 1 dead letters wait" in caplog.text
    assert "The oldest dead letter has waited for 12 days" in caplog.text
    assert "manage.py taskkit list" in caplog.text
    assert len(left()) == 2


@pytest.mark.parametrize(
    ("limits", "count"),
    [
        ({}, 0),
        ({"DEAD_WARN_COUNT": 2}, 0),
        ({"DEAD_WARN_COUNT": 1}, 1),
        ({"DEAD_WARN_AGE_DAYS": 12}, 1),
        ({"DEAD_WARN_AGE_DAYS": 13}, 0),
        ({"DEAD_WARN_COUNT": None, "DEAD_WARN_AGE_DAYS": None}, 0),
    ],
)
def test_what_is_over_and_done_with_needs_no_warning(settings, limits, count):
    settings.TASKKIT = limits
    dead_letter(ago=12 * DAY)
    dead_letter(reason="revoked")
    for status in ("requeued", "recovered", "discarded"):
        dead_letter(status=status, ago=500 * DAY)

    assert len(retention.warnings()) == count


def test_the_count_ends_at_the_limit(settings):
    settings.TASKKIT = {"DEAD_WARN_COUNT": 2}
    for _ in range(4):
        dead_letter()

    with CaptureQueriesContext(connection) as queries:
        assert len(retention.warnings()) == 1

    assert "LIMIT 3" in queries[0]["sql"]
