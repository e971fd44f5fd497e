"""One row per task id, whatever is reported twice, late or out of order."""

from datetime import datetime, timezone

import pytest
from django.db import DataError, OperationalError, connection

from django_taskkit.dlq import recorder
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
    write = recorder._write
    failures = iter([OperationalError("server has gone away")])

    def flaky(attempt):
        for failure in failures:
            raise failure
        return write(attempt)

    monkeypatch.setattr(recorder, "_write", flaky)

    assert recorder.record(death())
    assert DeadLetter.objects.count() == 1


def test_text_that_the_database_refuses_is_stored_as_short_ascii(monkeypatch):
    """As on a database whose character set lacks the characters."""
    write = recorder._write

    def particular(attempt):
        if not attempt.exception_message.isascii():
            raise DataError("Incorrect string value")
        return write(attempt)

    monkeypatch.setattr(recorder, "_write", particular)

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
