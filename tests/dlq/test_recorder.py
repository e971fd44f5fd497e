"""One row per task id, whatever is reported twice, late or out of order, and whatever the database does."""

import logging
import uuid
from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from django.db import DataError, OperationalError, connection, connections, transaction

from django_taskkit.dlq import discard, recorder, requeue, rows, spool, spool_files
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.envelope import Envelope
from django_taskkit.models import DeadLetter, DeadLetterEvent
from django_taskkit.signals import task_recovered

pytestmark = pytest.mark.django_db


def death(task_id="x", generation=0, message="first", body=b"[]"):
    headers = {"id": task_id, "task": "t", "retries": 0}
    if generation:
        headers["taskkit_generation"] = generation
    return Death(
        envelope=Envelope(body=body, content_type="application/json", content_encoding="utf-8", headers=headers),
        task_name="t",
        reason=Reason.EXCEPTION,
        died_at=datetime(2026, 11, 21, tzinfo=timezone.utc),
        exception_class="ValueError",
        exception_message=message,
    )


DIED_AT = datetime(2026, 11, 21, tzinfo=timezone.utc)


def add_event(kind, at, generation=0):
    DeadLetter.objects.get().events.create(kind=kind, at=at, generation=generation)


def columns():
    ignored = {"id"}
    return [{key: value for key, value in row.items() if key not in ignored} for row in DeadLetter.objects.values()]


def set_row(**values):
    DeadLetter.objects.update(**values)


def kinds():
    return [event.kind for event in DeadLetterEvent.objects.all()]


def test_a_death_reported_twice_is_one_row_and_one_event():
    assert recorder.record(death())
    assert recorder.record(death(message="second report"))

    assert DeadLetter.objects.get().exception_message == "first"
    assert kinds() == ["died"]


def test_a_requeued_task_that_dies_again_is_the_same_row():
    recorder.record(death())
    set_row(status="requeued", requeue_count=1)

    recorder.record(death(generation=1, message="again"))

    letter = DeadLetter.objects.get()
    assert (letter.status, letter.exception_message, letter.requeue_count) == ("dead", "again", 1)
    assert kinds() == ["died", "died"]


def test_a_death_without_its_generation_is_not_lost_and_the_requeue_still_closes_the_row():
    """It may be an old message that was delivered once more, or one whose header somebody dropped."""
    recorder.record(death())
    set_row(status="requeued", requeue_count=1)

    recorder.record(death(generation=0, message="late"))

    letter = DeadLetter.objects.get()
    assert (letter.status, letter.exception_message, letter.requeue_count) == ("dead", "late", 1)
    assert recorder.recover("x", 1)


def test_a_second_delivery_of_a_message_that_recovered_changes_nothing():
    recorder.record(death())
    set_row(status="recovered", requeue_count=1)

    recorder.record(death(generation=1))

    assert DeadLetter.objects.get().status == "recovered"


def test_a_new_message_under_the_id_of_a_closed_one_opens_the_row_again():
    recorder.record(death())
    set_row(status="recovered", requeue_count=1)

    recorder.record(death(message="new message", body=b"[1]"))

    letter = DeadLetter.objects.get()
    assert (letter.status, bytes(letter.body), letter.requeue_count) == ("dead", b"[1]", 1)


def test_another_message_under_the_id_of_a_dead_one_is_told_in_the_log(caplog):
    recorder.record(death())

    recorder.record(death(body=b"[1]"))

    assert bytes(DeadLetter.objects.get().body) == b"[]"
    assert "another message under the same id" in caplog.text


def test_ids_that_differ_in_case_or_a_space_are_different_ids():
    """They are one id in the default collation of MariaDB."""
    for task_id in ("ab3", "aB3", "ab3 ", "àb3"):
        recorder.record(death(task_id=task_id))

    assert DeadLetter.objects.count() == 4


def test_a_discarded_task_that_dies_again_is_dead_again():
    recorder.record(death())
    set_row(status="discarded")

    recorder.record(death(message="sent by hand"))

    assert DeadLetter.objects.get().status == "dead"


def test_a_row_that_was_purged_is_made_anew_with_its_generation():
    recorder.record(death(generation=3))

    assert DeadLetter.objects.get().requeue_count == 3


def test_a_requeued_task_that_succeeds_is_recovered():
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append(event)

    task_recovered.connect(receiver)
    recorder.record(death())
    set_row(status="requeued", requeue_count=1)

    assert recorder.recover("x", 1)
    assert not recorder.recover("x", 1)
    task_recovered.disconnect(receiver)

    assert DeadLetter.objects.get().status == "recovered"
    assert kinds() == ["died", "recovered"]
    assert [event.generation for event in seen] == [1]


def test_the_success_of_an_older_generation_does_not_close_a_newer_one():
    recorder.record(death())
    set_row(status="requeued", requeue_count=2)

    assert not recorder.recover("x", 1)


def test_a_publish_that_only_seemed_to_fail_still_recovers_the_row():
    recorder.record(death())

    assert recorder.recover("x", 1)
    assert DeadLetter.objects.get().requeue_count == 1


def test_a_success_without_a_row_changes_nothing():
    assert not recorder.recover("nobody", 1)


def test_a_write_that_fails_once_is_tried_again(monkeypatch):
    write = rows._write
    failures = iter([OperationalError("server has gone away")])

    def flaky(attempt, **options):
        for failure in failures:
            raise failure
        return write(attempt, **options)

    monkeypatch.setattr(rows, "_write", flaky)

    assert recorder.record(death())
    assert DeadLetter.objects.count() == 1


def test_text_that_the_database_refuses_is_stored_as_short_ascii(monkeypatch):
    """As on a database whose character set lacks the characters."""
    write = rows._write

    def particular(attempt, **options):
        if not attempt.exception_message.isascii():
            raise DataError("Incorrect string value")
        return write(attempt, **options)

    monkeypatch.setattr(rows, "_write", particular)

    assert recorder.record(death(message="giao hàng 🚚" + "x" * 5_000))
    message = DeadLetter.objects.get().exception_message
    assert message.startswith("giao h\\xe0ng \\U0001f69a")
    assert "characters left out" in message


@pytest.mark.django_db(transaction=True)
def test_a_connection_that_broke_during_the_task_is_replaced():
    if connection.vendor == "sqlite":
        pytest.skip("SQLite has no connection that could break")
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    connection.connection.close()

    assert recorder.record(death())
    assert DeadLetter.objects.count() == 1


class TestADeathThatComesLate:
    """From the spool or the broker, when the row may have moved on."""

    def test_is_known_although_the_row_was_requeued(self):
        recorder.record(death())
        set_row(status="requeued", requeue_count=1)
        add_event("requeued", DIED_AT + timedelta(hours=1), generation=1)

        assert recorder.record(death(message="again"), late=True)

        assert (DeadLetter.objects.get().status, kinds()) == ("requeued", ["died", "requeued"])

    @pytest.mark.parametrize("status", ["recovered", "discarded"])
    def test_is_known_although_the_row_was_closed(self, status):
        recorder.record(death())
        set_row(status=status)
        add_event(status, DIED_AT + timedelta(hours=1))

        recorder.record(death(), late=True)

        assert (DeadLetter.objects.get().status, kinds()) == (status, ["died", status])

    def test_is_known_although_the_clock_that_dated_it_is_a_little_ahead(self):
        """RabbitMQ dates a rejected message that our worker has recorded already."""
        recorder.record(death())
        set_row(status="recovered", requeue_count=1)
        add_event("recovered", DIED_AT + timedelta(seconds=5))

        recorder.record(replace(death(), died_at=DIED_AT + timedelta(seconds=30)), late=True)

        assert DeadLetter.objects.get().status == "recovered"

    def test_is_the_death_of_the_requeued_message_if_that_is_the_one_that_died(self):
        recorder.record(death())
        set_row(status="requeued", requeue_count=1)
        add_event("requeued", DIED_AT, generation=1)

        recorder.record(death(generation=1, message="again"), late=True)

        letter = DeadLetter.objects.get()
        assert (letter.status, letter.exception_message, kinds()) == ("dead", "again", ["died", "requeued", "died"])

    def test_is_history_if_the_letter_was_requeued_once_more_meanwhile(self):
        recorder.record(death())
        set_row(status="requeued", requeue_count=2)
        add_event("requeued", DIED_AT + timedelta(hours=1), generation=2)

        recorder.record(death(generation=1, message="again"), late=True)
        recorder.record(death(generation=1, message="again"), late=True)

        letter = DeadLetter.objects.get()
        assert (letter.status, letter.exception_message) == ("requeued", "first")
        assert sorted(kinds()) == ["died", "died", "requeued"]

    def test_is_a_new_one_if_the_row_was_closed_long_before_it(self):
        """A nightly task under a fixed id, say."""
        recorder.record(death())
        set_row(status="discarded")
        add_event("discarded", DIED_AT + timedelta(hours=1))

        tonight = replace(death(message="tonight"), died_at=DIED_AT + timedelta(hours=24))
        recorder.record(tonight, late=True)

        letter = DeadLetter.objects.get()
        assert (letter.status, letter.exception_message) == ("dead", "tonight")

    def test_is_known_after_a_real_requeue_and_a_real_discard(self, station):
        recorder.record(replace(death(), died_at=datetime.now(timezone.utc)))
        first = replace(death(), died_at=DeadLetter.objects.get().died_at)
        requeue(DeadLetter.objects.all(), queue=station.queue)
        recorder.record(first, late=True)
        assert DeadLetter.objects.get().status == "requeued"

        discard(DeadLetter.objects.all(), force=True)
        recorder.record(first, late=True)
        assert DeadLetter.objects.get().status == "discarded"


@pytest.fixture
def spool_dir(settings, tmp_path):
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path), "SPOOL_QUEUE": f"spool-{uuid.uuid4()}", "RELEASE": "1.0"}
    return tmp_path


@pytest.fixture
def database(monkeypatch):
    """A database that can be `down`."""

    class Database:
        down = False
        tries = 0

    real = rows._write

    def write(attempt, **options):
        Database.tries += 1
        if Database.down:
            raise OperationalError("server closed the connection unexpectedly")
        return real(attempt, **options)

    works = rows.works
    monkeypatch.setattr(rows, "_write", write)
    monkeypatch.setattr(rows, "works", lambda *args: not Database.down and works(*args))
    return Database


class TestTheDatabaseIsDown:
    def test_the_death_waits_in_a_queue_of_the_broker_and_becomes_the_same_row(
        self, station, spool_dir, database, settings, caplog
    ):
        recorder.record(death("x", message="giao hàng"))
        expected = columns()
        DeadLetter.objects.all().delete()
        database.down = True

        with caplog.at_level(logging.WARNING):
            assert recorder.record(death("x", message="giao hàng"))

        assert "waits in queue 'spool-" in caplog.text
        assert not DeadLetter.objects.exists()
        assert spool.waiting(station.app) == (0, 1)

        database.down = False
        settings.TASKKIT = {**settings.TASKKIT, "RELEASE": "2.0"}
        assert spool.drain(station.app, 10) == 1
        assert columns() == expected
        assert kinds() == ["died"]
        assert spool.waiting(station.app) == (0, 0)

    def test_without_a_broker_it_waits_in_a_file_and_becomes_the_same_row(self, station, spool_dir, database):
        recorder.record(death())
        expected = columns()
        DeadLetter.objects.all().delete()
        database.down = True
        station.app.conf.broker_url = "redis://127.0.0.1:1/0"

        assert recorder.record(death())
        assert len(spool_files.names()) == 1

        database.down = False
        assert spool.drain_files(10) == 1
        assert columns() == expected
        assert spool_files.names() == []

    def test_a_worker_brings_its_files_in_when_its_database_works_again(self, spool_dir, settings, database):
        settings.TASKKIT = {**settings.TASKKIT, "SPOOL_QUEUE": ""}
        database.down = True
        recorder.record(death("x"))
        database.down = False
        recorder.database_pause.end()

        recorder.record(death("y"))

        assert {row.task_id for row in DeadLetter.objects.all()} == {"x", "y"}

    def test_the_next_deaths_do_not_wait_for_it(self, station, spool_dir, database):
        database.down = True
        recorder.record(death("x"))
        tries = database.tries

        recorder.record(death("y"))

        assert database.tries == tries
        assert spool.waiting(station.app) == (0, 2)

    def test_where_nothing_keeps_a_death_the_log_says_whose_it_was(self, spool_dir, settings, database, caplog):
        database.down = True
        (spool_dir / "file").touch()
        settings.TASKKIT = {"SPOOL_DIR": str(spool_dir / "file"), "SPOOL_QUEUE": ""}

        assert not recorder.record(death())

        [entry] = [entry for entry in caplog.records if entry.levelno == logging.CRITICAL]
        assert entry.message.startswith("task t[x] died (exception) and its dead letter could be neither written nor")


def test_a_row_that_the_database_refuses_is_set_aside_and_holds_up_no_other(station, spool_dir, monkeypatch, caplog):
    """As MariaDB refuses a message that is larger than its ``max_allowed_packet``."""
    write = rows._write

    def particular(attempt, **options):
        if attempt.envelope.body == b"large":
            raise OperationalError(1153, "Got a packet bigger than 'max_allowed_packet' bytes")
        return write(attempt, **options)

    monkeypatch.setattr(rows, "_write", particular)
    assert recorder.record(death("large", body=b"large"))
    assert recorder.record(death("y"))
    spool_files.write(death("large-file", body=b"large").as_text())

    assert spool.drain(station.app, 10) == 0

    assert [row.task_id for row in DeadLetter.objects.all()] == ["y"]
    assert spool.waiting(station.app) == (0, 0)
    refused = sorted((spool_dir / "refused").iterdir())
    assert len(refused) == 2
    for file in refused:
        assert f"is kept in {file}: OperationalError" in caplog.text

    monkeypatch.setattr(rows, "_write", write)
    for file in refused:
        file.rename(spool_dir / file.name)
    assert spool.drain_files(10) == 2
    assert {row.task_id for row in DeadLetter.objects.all()} == {"large", "large-file", "y"}


@pytest.mark.django_db(transaction=True)
class TestATaskLeavesItsConnectionInATransaction:
    """Celery closes it after the task, and what was written there is gone."""

    def close_as_celery_does(self):
        connections["default"].close()

    def test_with_autocommit_off(self, station, spool_dir):
        @station.app.task
        def fail():
            transaction.set_autocommit(False)
            DeadLetter.objects.count()
            raise ValueError("no")

        sent = fail.delay()
        station.run_next()
        self.close_as_celery_does()

        assert DeadLetter.objects.get().task_id == sent.id

    def test_with_a_block_open(self, station, spool_dir):
        left_open = transaction.atomic()

        @station.app.task
        def fail():
            left_open.__enter__()
            raise ValueError("no")

        sent = fail.delay()
        station.run_next()
        connections["default"].close()
        left_open.__exit__(None, None, None)

        # On SQLite its lock keeps everybody else out, so there the death had to be spooled.
        spool.drain(station.app, 10)
        assert DeadLetter.objects.get().task_id == sent.id

    def test_in_which_an_error_happened(self, station, spool_dir):
        @station.app.task
        def fail():
            transaction.set_autocommit(False)
            with connection.cursor() as cursor:
                cursor.execute("SELECT nothing FROM nowhere")

        sent = fail.delay()
        station.run_next()
        self.close_as_celery_does()

        assert DeadLetter.objects.get().task_id == sent.id

    def test_that_it_started_behind_the_back_of_django(self, station, spool_dir):
        @station.app.task
        def fail():
            with connection.cursor() as cursor:
                cursor.execute("BEGIN")
                cursor.execute("SELECT 1")
            raise ValueError("no")

        sent = fail.delay()
        station.run_next()
        self.close_as_celery_does()

        assert DeadLetter.objects.get().task_id == sent.id
