"""What the broker declared dead; tests/live/test_intake.py has RabbitMQ's own dead-letter exchange."""

import uuid
from datetime import datetime, timezone

import pytest
from kombu import Exchange, Queue

from django_taskkit.dlq import intake, recorder, rows
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db

# As py-amqp gives it: UTC, and nothing that says so.
TIME = datetime(2026, 11, 21, 9, 30)


@pytest.fixture
def dead(settings):
    """The name of an intake queue."""
    name = f"dead-{uuid.uuid4()}"
    settings.TASKKIT = {"INTAKE_QUEUES": [name], "RELEASE": "of the relay"}
    return name


@pytest.fixture
def put(station, dead):
    def put(deaths=None, body="[[7], {}, {}]", name=dead, headers=None, **properties):
        headers = {"id": "x", "task": "t", "retries": 1, "tenant": "t1"} if headers is None else headers
        if deaths is not None:
            headers = {**headers, "x-death": deaths, "x-first-death-queue": "first"}
        queue = Queue(name, Exchange(""), routing_key=name)
        with station.app.connection_for_write() as connection, connection.Producer() as producer:
            producer.publish(
                body,
                exchange="",
                routing_key=name,
                declare=[queue],
                content_type="application/json",
                content_encoding="utf-8",
                headers=headers,
                **properties,
            )

    return put


def entry(reason="rejected", queue="orders", **more):
    return {
        "reason": reason,
        "queue": queue,
        "exchange": "shop",
        "routing-keys": ["orders.new", "copy"],
        "count": 1,
        "time": TIME,
        **more,
    }


@pytest.fixture
def death_of(station, put, dead):
    """What becomes of a message, before it is written: brokers without AMQP carry no times in headers."""

    def death_of(deaths):
        put()
        message = station.app.amqp.queues[dead](station._channel).get()
        message.ack()
        message.headers["x-death"] = deaths
        return intake.death_of(station.app, message, dead)

    return death_of


class TestAMessageThatRabbitMQDeadLettered:
    @pytest.mark.parametrize(
        ("cause", "reason"),
        [
            ("rejected", "rejected"),
            ("expired", "expired"),
            ("delivery_limit", "delivery_limit"),
            ("maxlen", "broker"),
            ("something new", "broker"),
        ],
    )
    def test_is_a_dead_letter_with_its_reason(self, station, put, cause, reason):
        put([entry(cause)], priority=5)

        assert intake.drain(station.app, 10) == 1

        letter = DeadLetter.objects.get()
        assert (letter.task_id, letter.task_name, letter.reason) == ("x", "t", reason)
        assert letter.exception_message == f"RabbitMQ dead-lettered it from queue 'orders': {cause}"
        assert (letter.queue, letter.exchange, letter.routing_key) == ("orders", "shop", "orders.new")
        assert letter.headers == {"id": "x", "task": "t", "retries": 1, "tenant": "t1"}
        assert letter.properties["priority"] == 5
        assert (bytes(letter.body), letter.attempts, letter.release) == (b"[[7], {}, {}]", 2, "")

    def test_died_when_the_broker_says(self, death_of):
        assert death_of([entry()]).died_at == TIME.replace(tzinfo=timezone.utc)

    def test_has_its_time_without_a_zone_in_a_project_without_zones(self, death_of, settings):
        settings.USE_TZ = False
        settings.TIME_ZONE = "Asia/Taipei"

        assert death_of([entry()]).died_at == datetime(2026, 11, 21, 17, 30)

    def test_has_lost_its_time_to_live_which_would_end_it_again(self, station, put):
        put([entry("expired", **{"original-expiration": "1000"})], expiration=1)

        intake.drain(station.app, 10)

        assert "expiration" not in DeadLetter.objects.get().properties

    def test_died_in_the_queue_that_it_was_in_last(self, death_of):
        assert death_of([entry("expired", "second"), entry("rejected", "first")]).envelope.queue == "second"

    def test_did_not_die_in_the_queues_that_delayed_it(self, death_of):
        deaths = [entry("expired", "celery_delayed_3"), entry("maxlen", "orders"), entry("expired", "celery_delayed_4")]

        assert death_of(deaths).envelope.queue == "orders"

    def test_did_not_die_where_it_waited_for_the_intake(self, death_of, station):
        """A queue that the app reads is the one, wherever the broker took the message afterwards."""
        death = death_of([entry("expired", "parking"), entry("rejected", station.queue)])

        assert (death.envelope.queue, death.reason) == (station.queue, "rejected")

    @pytest.mark.parametrize("deaths", ["odd", [], [42], [{}], [{"queue": None, "routing-keys": 42, "time": "now"}]])
    def test_is_kept_whatever_its_header_says(self, station, put, deaths):
        put(deaths)

        assert intake.drain(station.app, 10) == 1
        assert DeadLetter.objects.get().reason == "broker"

    def test_is_one_row_with_the_rejection_that_our_worker_recorded(self, station, put):
        put()
        put([entry("rejected", station.queue)])
        intake.drain(station.app, 1)

        assert intake.drain(station.app, 10) == 1

        letter = DeadLetter.objects.get()
        assert [event.kind for event in letter.events.all()] == ["died"]

    def test_that_was_requeued_meanwhile_stays_so(self, station, put):
        put([entry()])
        intake.drain(station.app, 10)
        DeadLetter.objects.update(status="requeued", requeue_count=1)
        letter = DeadLetter.objects.get()
        letter.events.create(kind="requeued", at=datetime(2126, 1, 1, tzinfo=timezone.utc), generation=1)

        put([entry()])
        intake.drain(station.app, 10)

        assert DeadLetter.objects.get().status == "requeued"


class TestAnyOtherMessageInTheQueue:
    def test_is_kept_as_it_is(self, station, put, dead):
        put()

        intake.drain(station.app, 10)

        letter = DeadLetter.objects.get()
        assert (letter.reason, letter.queue) == ("broker", dead)
        assert letter.exception_message == f"It was in queue {dead!r}, which TASKKIT['INTAKE_QUEUES'] names."

    def test_gets_an_id_of_its_own_if_it_has_none(self, station, put):
        for body in ("hello", "goodbye", "hello"):
            put(body=body, headers={})

        assert intake.drain(station.app, 10) == 3

        assert {bytes(row.body) for row in DeadLetter.objects.all()} == {b"hello", b"goodbye"}
        assert all(row.task_id.startswith("no-id-") for row in DeadLetter.objects.all())

    def test_keeps_that_id_when_it_is_requeued_and_dies_again(self, station, put):
        put(body="hello", headers={"tenant": "t1"})
        intake.drain(station.app, 10)
        letter = DeadLetter.objects.get()
        again = letter.envelope.again(generation=1)
        DeadLetter.objects.update(status="requeued", requeue_count=1)

        recorder.record(Death(envelope=again, task_name="", reason=Reason.BROKER, died_at=letter.died_at))

        assert DeadLetter.objects.get().status == "dead"


class TestTheQueues:
    def test_are_emptied_no_further_than_asked_for_and_each_gets_its_turn(self, station, put, settings, dead):
        settings.TASKKIT = {"INTAKE_QUEUES": [dead, f"{dead}.2", f"{dead}.3"]}
        for number in range(6):
            put(headers={"id": f"a{number}", "task": "t"})
        put(headers={"id": "c", "task": "t"}, name=f"{dead}.3")

        assert intake.drain(station.app, 4) <= 4
        assert DeadLetter.objects.filter(task_id="c").exists()
        assert DeadLetter.objects.count() < 7
        while intake.drain(station.app, 4):
            pass
        assert DeadLetter.objects.count() == 7

    def test_keep_what_is_in_them_while_the_database_is_down(self, station, put, monkeypatch):
        def down(*args, **options):
            raise rows.DatabaseDownError("gone")

        put()
        with monkeypatch.context() as patch:
            patch.setattr(rows, "works", lambda *args: False)
            assert intake.drain(station.app, 10) == 0
        with monkeypatch.context() as patch:
            patch.setattr(rows, "write", down)
            assert intake.drain(station.app, 10) == 0

        assert intake.drain(station.app, 10) == 1

    def test_are_not_held_up_by_a_row_that_the_database_refuses(
        self, station, put, monkeypatch, settings, dead, tmp_path
    ):
        settings.TASKKIT = {"INTAKE_QUEUES": [dead], "SPOOL_DIR": str(tmp_path / "spool")}
        write = rows.write

        def particular(death, **options):
            if death.envelope.task_id == "large":
                raise rows.RowRefusedError("too large")
            return write(death, **options)

        monkeypatch.setattr(rows, "write", particular)
        put(headers={"id": "large", "task": "t"})
        put()

        assert intake.drain(station.app, 10) == 1
        assert len(list((tmp_path / "spool" / "refused").iterdir())) == 1
        assert intake.drain(station.app, 10) == 0

    def test_that_can_not_be_reached_are_named_once(self, station, dead, caplog):
        station.app.conf.broker_url = "redis://127.0.0.1:1/0"

        assert intake.drain(station.app, 10) == 0
        assert intake.drain(station.app, 10) == 0

        assert caplog.text.count("the intake queues can't be read") == 1

    def test_are_none_by_default(self, station):
        assert intake.drain(station.app, 10) == 0
