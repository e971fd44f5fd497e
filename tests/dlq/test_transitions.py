"""Requeue and discard: the same message, once, and nothing lost on the way."""

import socket
import threading
from datetime import datetime, timedelta, timezone

import pytest
from celery import chain
from django.contrib.auth import get_user_model
from django.db import connection
from kombu import Queue

from django_taskkit.dlq import discard, handing_on, publisher, requeue, transitions
from django_taskkit.dlq.bulk.rows import by_size
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.exceptions import PublishError, TaskkitError
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
    sent_at = message.headers["taskkit_sent_at"]
    assert sent_at > letter.headers["taskkit_sent_at"]
    again = {"retries": 0, "expires": None, "taskkit_generation": 1, "taskkit_sent_at": sent_at}
    assert message.headers == {**letter.headers, **again}
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


def test_keys_can_be_given(station, fail):
    for number in range(3):
        fail.delay(number)
    station.run_all()
    keys = list(DeadLetter.objects.values_list("pk", flat=True))

    assert requeue(keys[:2]).requeued == 2
    assert discard(keys[2:]).discarded == 1


def test_the_report_names_the_rows_and_their_generations(station, fail, monkeypatch):
    for number in range(4):
        fail.delay(number)
    station.run_all()
    first, second, third, fourth = DeadLetter.objects.order_by("pk")
    DeadLetter.objects.filter(pk=second.pk).update(requeue_count=4)
    discard(third)

    report = requeue([fourth, second, third, first])

    assert report.generations == {fourth.pk: 1, second.pk: 5, first.pk: 1}
    assert [refusal.dead_letter.pk for refusal in report.refused] == [third.pk]
    assert [station.take().headers["taskkit_generation"] for _ in range(3)] == [1, 5, 1]


def test_a_report_of_very_many_only_counts_them(station, fail, monkeypatch):
    """So that it takes no more memory, however many there are."""
    monkeypatch.setattr(transitions, "CHUNK", 2)
    monkeypatch.setattr(transitions, "NAMED", 2)
    for number in range(5):
        fail.delay(number)
    station.run_all()

    report = requeue(DeadLetter.objects.all())

    assert (report.requeued, len(report.generations)) == (5, 2)


def test_large_messages_are_read_few_at_a_time(station, fail, monkeypatch):
    monkeypatch.setattr("django_taskkit.dlq.bulk.rows.BYTES", 5_000)
    for size in (10, 4_000, 4_000, 9_000, 10):
        fail.delay("x" * size)
    station.run_all()
    keys = list(DeadLetter.objects.order_by("pk").values_list("pk", flat=True))

    parts = list(by_size("default", [*keys, 0], 500))

    assert parts == [[keys[0]], [keys[1]], [keys[2]], [keys[3]], [keys[4], 0]]
    assert requeue(keys).requeued == 5


def test_one_that_is_refused_does_not_hold_up_the_others(station, fail, monkeypatch):
    """The row is given back as it was, without an entry in its history."""

    class Refusing(transitions.BulkPublisher):
        def publish(self, envelope, queue=None, countdown=None):
            if envelope.headers["id"] == "bad":
                raise PublishError("too odd")
            super().publish(envelope, queue, countdown)

    monkeypatch.setattr(transitions, "BulkPublisher", Refusing)
    for task_id in ("good", "bad", "fine"):
        fail.apply_async(task_id=task_id)
    station.run_all()
    DeadLetter.objects.filter(task_id="bad").update(status="held", requeue_count=3)

    report = requeue(DeadLetter.objects.all(), by="ann")

    assert report.requeued == 2
    assert [(refusal.dead_letter.task_id, refusal.reason) for refusal in report.refused] == [("bad", "too odd")]
    bad = DeadLetter.objects.get(task_id="bad")
    assert (bad.status, bad.requeue_count, kinds(bad)) == ("held", 3, [("died", "", 0)])
    assert DeadLetterEvent.objects.filter(kind="requeued").count() == 2


def test_a_broker_that_goes_away_in_between_leaves_what_was_not_sent_as_it_was(station, fail, monkeypatch):
    class Breaking(transitions.BulkPublisher):
        def publish(self, envelope, queue=None, countdown=None):
            if envelope.headers["id"] == "id-2":
                raise BrokerUnreachableError("gone")
            super().publish(envelope, queue, countdown)

    monkeypatch.setattr(transitions, "BulkPublisher", Breaking)
    monkeypatch.setattr(transitions, "CHUNK", 4)
    for number in range(6):
        fail.apply_async(task_id=f"id-{number}")
    station.run_all()

    report = requeue(DeadLetter.objects.all())

    assert (report.requeued, report.not_tried, report.outage) == (2, 2, "gone")
    assert [refusal.dead_letter.task_id for refusal in report.refused] == ["id-2", "id-3"]
    assert set(DeadLetter.objects.filter(status="requeued").values_list("task_id", flat=True)) == {"id-0", "id-1"}


def test_a_held_letter_is_requeued(station, letter, cured):
    DeadLetter.objects.update(status="held")
    cured.set()

    assert requeue(letter).requeued == 1
    station.run_next()

    letter.refresh_from_db()
    assert letter.status == "recovered"


def test_the_failure_of_a_held_letter_is_handed_on_when_it_is_discarded(station, letter, fail):
    station.app.backend.forget("the-id")
    DeadLetter.objects.update(status="held")

    report = discard(letter, by="ann", note="enough", app=station.app)

    letter.refresh_from_db()
    assert (report.discarded, letter.status) == (1, "discarded")
    assert station.app.AsyncResult("the-id").state == "FAILURE"
    assert letter.events.get(kind="discarded").by == "ann"


def test_so_is_that_of_one_that_was_held_when_it_was_requeued_and_got_lost(station, letter):
    DeadLetter.objects.update(status="held")
    letter.events.update(kind="held")
    requeue(letter, reset_results=True)
    station.take()  # and forget it
    assert station.app.AsyncResult("the-id").state == "PENDING"

    assert discard(letter, force=True, app=station.app).discarded == 1

    assert station.app.AsyncResult("the-id").state == "FAILURE"


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (TaskkitError("it can't be handed on"), "it can't be handed on"),
        (OSError("no network"), "its failure could not be handed on: OSError: no network"),
    ],
)
def test_a_held_letter_whose_failure_can_not_be_handed_on_stays_held(station, fail, monkeypatch, exc, reason):
    for number in range(3):
        fail.apply_async(task_id=f"id-{number}")
    station.run_all()
    DeadLetter.objects.filter(task_id="id-1").update(status="held")

    def hand_on(dead_letter, *, app):
        assert dead_letter.status == "held"
        raise exc

    monkeypatch.setattr(handing_on, "hand_on", hand_on)
    report = discard(DeadLetter.objects.all())

    assert report.discarded == 2
    assert [(refusal.dead_letter.task_id, refusal.reason) for refusal in report.refused] == [("id-1", reason)]
    held = DeadLetter.objects.get(task_id="id-1")
    assert (held.status, kinds(held)) == ("held", [("died", "", 0)])


def test_the_state_of_the_result_can_be_reset(station, letter):
    assert station.app.AsyncResult("the-id").state == "FAILURE"

    requeue(letter, reset_results=True)

    assert station.app.AsyncResult("the-id").state == "PENDING"
    station.run_next()
    assert station.app.AsyncResult("the-id").state == "FAILURE"


def test_so_can_those_of_what_follows_in_the_chain(station, fail, cured):
    last = chain(fail.si(), fail.si(), fail.si()).apply_async()
    ids = [last.parent.parent.id, last.parent.id, last.id]

    def states():  # asked for anew: a result object keeps a failure that it has seen
        return [station.app.AsyncResult(task_id).state for task_id in ids]

    station.run_next()
    assert states() == ["FAILURE"] * 3

    requeue(DeadLetter.objects.get(), reset_results=True)

    assert states() == ["PENDING"] * 3
    cured.set()
    assert station.run_all() == 3
    assert states() == ["SUCCESS"] * 3


def test_a_result_backend_that_is_away_keeps_nothing_from_being_requeued(station, fail, letter, caplog, monkeypatch):
    fail.delay()
    station.run_next()

    def away(*args, **options):
        raise OSError("away")

    monkeypatch.setattr(station.app.backend, "store_result", away)

    assert requeue(DeadLetter.objects.all(), reset_results=True).requeued == 2
    assert [record.message for record in caplog.records if "result states" in record.message] == [
        "requeue: the result states are left as they are: OSError: away"
    ]


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


def test_a_requeue_can_wait_until_a_time(station, letter):
    moment = datetime.now(timezone.utc) + timedelta(hours=1)

    requeue(letter, not_before=moment)

    assert datetime.fromisoformat(station.take().headers["eta"]) == moment


def test_a_time_without_a_zone_is_in_that_of_django(station, letter, settings):
    settings.TIME_ZONE = "Asia/Taipei"

    requeue(letter, not_before=datetime(2100, 1, 1, 12))

    assert station.take().headers["eta"] == "2100-01-01T04:00:00+00:00"


def test_a_time_that_has_passed_is_at_once(station, letter):
    requeue(letter, not_before=datetime(2020, 1, 1, tzinfo=timezone.utc))

    assert station.take().headers["eta"] is None


def test_a_delay_and_a_time_exclude_each_other(station, letter):
    with pytest.raises(ValueError, match="a countdown or a time not_before, not both"):
        requeue(letter, countdown=5, not_before=datetime(2100, 1, 1, tzinfo=timezone.utc))


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
    assert report.outage == report.refused[0].reason
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

    class Recording(transitions.BulkPublisher):
        def connect(self):
            depths.append(len(connection.savepoint_ids))
            super().connect()
            assert self._connection.connected

    monkeypatch.setattr(transitions, "BulkPublisher", Recording)
    for number in range(2):
        fail.delay(number)
    station.run_all()

    assert requeue(DeadLetter.objects.all()).requeued == 2
    assert depths == [0]


def test_a_row_that_is_deleted_while_the_broker_is_down_is_refused_like_the_others(station, letter):
    gone = DeadLetter.objects.get()
    rows = [DeadLetter(pk=gone.pk)]
    gone.delete()

    [refusal] = requeue(rows, app=unreachable()).refused

    assert "the broker can't be reached" in refusal.reason
