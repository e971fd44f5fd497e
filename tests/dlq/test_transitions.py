"""Requeue and discard: the same message, once, and nothing lost on the way."""

import socket
import threading
from datetime import datetime, timedelta, timezone

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from kombu import Queue

from django_taskkit.dlq import discard, publisher, requeue, transitions
from django_taskkit.models import DeadLetter, DeadLetterEvent
from django_taskkit.signals import task_discarded, task_requeued

pytestmark = pytest.mark.django_db


@pytest.fixture
def cured():
    """Set it, and the tasks of these tests succeed."""
    return threading.Event()


@pytest.fixture
def fail(station, cured):
    @station.app.task(name="fail")
    def fail(*args, **kwargs):
        if not cured.is_set():
            raise ValueError("no")
        return "done"

    return fail


@pytest.fixture
def letter(station, fail):
    fail.apply_async((7,), {"a": "é"}, headers={"tenant": "t1"}, priority=3, task_id="the-id", expires=3600)
    station.run_next()
    return DeadLetter.objects.get()


def kinds(letter):
    return [(event.kind, event.by, event.generation) for event in letter.events.all()]


def test_the_same_message_is_sent_again(station, letter):
    report = requeue(letter)

    message = station.take()
    assert (report.requeued, report.refused) == (1, ())
    assert message.body == bytes(letter.body)
    assert (message.content_type, message.content_encoding) == (letter.content_type, letter.content_encoding)
    assert message.headers.pop("taskkit_requeued_at") > letter.died_at.timestamp()
    assert message.headers == {**letter.headers, "retries": 0, "expires": None, "taskkit_generation": 1}
    assert message.properties["priority"] == 3
    assert message.properties["correlation_id"] == "the-id"


def test_a_requeued_task_that_succeeds_is_recovered(station, letter, cured):
    cured.set()
    user = get_user_model().objects.create(username="ann")

    requeue(letter, by=user)
    station.run_next()

    letter.refresh_from_db()
    assert (letter.status, letter.requeue_count) == ("recovered", 1)
    assert kinds(letter) == [("died", "", 0), ("requeued", "ann", 1), ("recovered", "", 1)]
    assert station.app.AsyncResult("the-id").state == "SUCCESS"


def test_a_requeued_task_that_dies_again_is_the_same_row(station, letter):
    requeue(letter, by="ann")
    station.run_next()

    letter.refresh_from_db()
    assert (letter.status, letter.requeue_count, letter.attempts) == ("dead", 1, 1)
    assert [kind for kind, _by, _generation in kinds(letter)] == ["died", "requeued", "died"]


def test_the_generation_survives_a_retry(station, cured):
    @station.app.task(bind=True, max_retries=5)
    def retrying(self):
        if self.request.retries == 0 and cured.is_set():
            raise self.retry(countdown=1)
        if not cured.is_set():
            raise ValueError

    retrying.delay()
    station.run_next()
    cured.set()
    requeue(DeadLetter.objects.get())

    assert station.run_all() == 2
    assert DeadLetter.objects.get().status == "recovered"


def test_only_dead_letters_that_are_dead_are_requeued(station, letter):
    requeue(letter)

    report = requeue(letter)

    assert report.requeued == 0
    [refusal] = report.refused
    assert refusal.dead_letter == letter
    assert refusal.reason == "it is requeued by now"
    assert station.waiting() == 1


def test_a_queryset_is_requeued_in_chunks(station, fail, monkeypatch, django_assert_max_num_queries):
    monkeypatch.setattr(transitions, "CHUNK", 2)
    for number in range(5):
        fail.delay(number)
    station.run_all()

    report = requeue(DeadLetter.objects.filter(status="dead"))

    assert report.requeued == 5
    assert station.waiting() == 5


def test_a_slice_and_a_list_are_requeued(station, fail):
    for number in range(5):
        fail.delay(number)
    station.run_all()

    assert requeue(DeadLetter.objects.all()[:2]).requeued == 2
    assert requeue(list(DeadLetter.objects.filter(status="dead"))).requeued == 3


def test_another_queue_can_be_chosen(station, letter):
    station.app.amqp.queues.add(Queue("slow"))

    requeue(letter, queue="slow", by="ann")

    assert station.waiting() == 0
    station.queue = "slow"
    assert station.take().headers["id"] == "the-id"
    assert letter.events.get(kind="requeued").note == "to queue slow"


def test_a_queue_that_is_not_declared_is_refused(station, letter):
    station.app.conf.task_create_missing_queues = False

    [refusal] = requeue(letter, queue="nope").refused

    assert refusal.reason == "there is no queue 'nope' in task_queues; add it or choose another"
    letter.refresh_from_db()
    assert letter.status == "dead"


def test_a_requeue_can_wait(station, letter):
    requeue(letter, countdown=60)

    assert station.take().headers["eta"] is not None


def test_a_delay_is_the_same_without_time_zones(station, letter, settings):
    """A time without zone would be read in Celery's, hours away."""
    settings.USE_TZ = False
    settings.TIME_ZONE = "Asia/Taipei"

    requeue(letter, countdown=60)

    eta = datetime.fromisoformat(station.take().headers["eta"])
    assert timedelta(seconds=0) < eta - datetime.now(timezone.utc) <= timedelta(seconds=60)


def test_a_row_that_was_deleted_meanwhile_does_not_stop_the_rest(station, fail):
    for number in range(2):
        fail.delay(number)
    station.run_all()
    rows = list(DeadLetter.objects.all())
    DeadLetter.objects.filter(pk=rows[0].pk).delete()

    report = requeue(rows)

    assert (report.requeued, [refusal.reason for refusal in report.refused]) == (1, ["it was deleted"])


def test_with_the_broker_down_the_row_stays_dead_and_the_rest_is_not_tried(station, fail):
    for number in range(3):
        fail.delay(number)
    station.run_all()
    station.app.conf.broker_url = "redis://127.0.0.1:1/0"

    report = requeue(DeadLetter.objects.all(), by="ann", app=unreachable())

    assert (report.requeued, len(report.refused), report.not_tried) == (0, 1, 2)
    assert "the broker can't be reached" in report.refused[0].reason
    assert {letter.status for letter in DeadLetter.objects.all()} == {"dead"}
    assert {letter.requeue_count for letter in DeadLetter.objects.all()} == {0}
    assert not DeadLetterEvent.objects.filter(kind="requeued").exists()


def unreachable():
    from celery import Celery

    app = Celery("unreachable", set_as_current=False)
    app.conf.broker_url = "redis://127.0.0.1:1/0"
    return app


def test_a_broker_that_takes_the_call_and_says_nothing_is_given_up(station, letter, monkeypatch):
    """The row stays locked while it is waited for."""
    monkeypatch.setattr(publisher, "ANSWER_TIMEOUT", 0.2)
    app = unreachable()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        app.conf.broker_url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        [refusal] = requeue(letter, app=app).refused

    assert "the broker can't be reached" in refusal.reason


def test_a_message_that_was_lost_is_sent_again_by_force(station, letter):
    requeue(letter)
    station.take()

    report = requeue(letter, force=True)

    assert report.requeued == 1
    assert station.take().headers["taskkit_generation"] == 2


def test_a_letter_whose_message_was_lost_is_closed_by_force(station, letter):
    requeue(letter)

    assert discard(letter, force=True).discarded == 1


def test_a_discarded_dead_letter_keeps_who_and_why(letter):
    report = discard(letter, by="ann", note="the customer left\x00")

    letter.refresh_from_db()
    assert report.discarded == 1
    assert letter.status == "discarded"
    event = letter.events.get(kind="discarded")
    assert (event.by, event.note) == ("ann", "the customer left\\x00")


def test_a_discarded_dead_letter_can_not_be_requeued(letter):
    discard(letter)

    assert requeue(letter).refused[0].reason == "it is discarded by now"


def test_discarding_twice_is_refused(letter):
    discard(letter)

    assert discard(letter).refused[0].reason == "it is discarded by now"


def test_signals_tell_who_did_what(station, letter, fail):
    seen = []

    def receiver(sender, event, **kwargs):
        seen.append(event)

    task_requeued.connect(receiver)
    task_discarded.connect(receiver)
    requeue(letter, by="ann")
    station.run_next()
    discard(letter, by="bob", note="enough")
    task_requeued.disconnect(receiver)
    task_discarded.disconnect(receiver)

    assert [(type(event).__name__, event.by) for event in seen] == [("Requeued", "ann"), ("Discarded", "bob")]
    assert seen[1].note == "enough"


@pytest.mark.django_db(transaction=True)
def test_two_operators_requeue_a_message_once(station, letter):
    """Each in a thread with a database connection of its own."""
    reports = []
    start = threading.Barrier(4)

    def click():
        start.wait()
        try:
            reports.append(requeue(DeadLetter.objects.filter(pk=letter.pk), app=station.app))
        finally:
            connection.close()

    threads = [threading.Thread(target=click) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(report.requeued for report in reports) == [0, 0, 0, 1]
    assert station.waiting() == 1


def test_a_task_that_ran_to_its_end_is_not_run_again_without_a_word(station, letter):
    DeadLetter.objects.update(body_ran=True)

    refused = requeue(letter)
    done = requeue(letter, even_if_ran=True)

    assert refused.refused[0].reason == "its task had ended well, and would do its work once more"
    assert (refused.requeued, done.requeued) == (0, 1)


def test_the_broker_is_connected_before_a_row_is_locked(station, fail, monkeypatch):
    """On SQLite the lock is on the whole database, and workers could not write down what dies meanwhile."""
    depths = []

    class Recording(transitions.Publisher):
        def connect(self):
            depths.append(len(connection.savepoint_ids))
            super().connect()
            assert self._connection.connected

    monkeypatch.setattr(transitions, "Publisher", Recording)
    for number in range(2):
        fail.delay(number)
    station.run_all()

    assert requeue(DeadLetter.objects.all()).requeued == 2
    assert depths == [0, 0]


def test_a_row_that_is_deleted_while_the_broker_is_down_is_refused_like_the_others(station, letter):
    gone = DeadLetter.objects.get()
    rows = [DeadLetter(pk=gone.pk)]
    gone.delete()

    [refusal] = requeue(rows, app=unreachable()).refused

    assert "the broker can't be reached" in refusal.reason
