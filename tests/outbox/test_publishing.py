import asyncio
import logging
import threading
from datetime import timedelta

import pytest
from celery import chain, chord, group, signals
from celery.contrib.django.task import DjangoTask
from django.contrib.auth.models import Group
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone
from kombu import Producer
from kombu.exceptions import EncodeError, OperationalError

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.models import DeadLetter, OutboxMessage, RelayHeartbeat
from django_taskkit.outbox import hooks
from django_taskkit.outbox.publishing import RELAY_TASK, Outage
from django_taskkit.outbox.relay import Relay

pytestmark = pytest.mark.django_db


@pytest.fixture
def add(station):
    @station.app.task(name="tests.add")
    def add(*numbers, **named):
        return numbers

    return add


def rows(**conditions):
    return list(OutboxMessage.objects.filter(**conditions))


def reasons():
    return [row.reason for row in rows()]


def sent(station):
    """The next message on the queue as the broker has it, without what differs from one sending to the next."""
    message = station.take()
    properties = {
        name: value
        for name, value in message.properties.items()
        if name not in {"delivery_tag", "delivery_info", "body_encoding"}
    }
    headers = {name: value for name, value in message.headers.items() if name not in {"origin", "taskkit_sent_at"}}
    delivery = {
        name: value
        for name, value in message.properties["delivery_info"].items()
        if name in {"exchange", "routing_key"}
    }
    return message.body, message.content_type, message.content_encoding, headers, properties, delivery


# When the broker can't be reached


def test_a_message_that_the_broker_does_not_take_waits_in_the_outbox(unreachable, add):
    result = add.delay(1, 2)

    (row,) = rows()
    assert (row.task_id, row.task_name, row.reason) == (result.id, "tests.add", "publish_failed")
    assert row.queue == unreachable.conf.task_default_queue
    assert row.due_at is None
    assert row.envelope.payload()[0] == [1, 2]
    assert "Connection refused" in row.last_error


def test_signals_are_sent_once_for_a_message_that_is_kept(unreachable, add):
    seen = []

    def note(signal=None, sender=None, headers=None, **kwargs):
        seen.append((signal, sender, headers["id"]))

    with_both = (signals.before_task_publish, signals.after_task_publish)
    for signal in with_both:
        signal.connect(note)
    try:
        result = add.delay()
        stored = add.apply_async(outbox=True)
    finally:
        for signal in with_both:
            signal.disconnect(note)

    assert seen == [(signal, "tests.add", call.id) for call in (result, stored) for signal in with_both]


@pytest.mark.parametrize("off", ["setting", "option", "task"])
def test_without_the_outbox_the_caller_gets_the_error(unreachable, add, settings, off):
    options = {}
    if off == "setting":
        settings.TASKKIT = {"OUTBOX": "never"}
    elif off == "option":
        options = {"outbox": False}
    else:
        add.outbox = False

    with pytest.raises(OperationalError):
        add.apply_async((1,), **options)

    assert rows() == []


def test_if_the_database_does_not_take_it_either_the_caller_gets_the_error_of_the_broker(unreachable, add, caplog):
    with transaction.atomic(), connection.execute_wrapper(refuse_inserts), pytest.raises(OperationalError) as caught:
        add.delay(1)

    assert "Connection refused" in str(caught.value)
    assert "the outbox doesn't take it" in caplog.text
    assert rows() == []


def refuse_inserts(execute, sql, params, many, context):
    if sql.startswith("INSERT"):
        raise DatabaseError("no space left")
    return execute(sql, params, many, context)


def test_a_transaction_goes_on_when_the_outbox_fails_inside_it(unreachable, add):
    with transaction.atomic():
        with connection.execute_wrapper(refuse_inserts), pytest.raises(OperationalError):
            add.delay(1)
        Group.objects.create(name="still possible")

    assert Group.objects.filter(name="still possible").exists()


def test_in_an_aborted_transaction_the_caller_gets_the_error_of_the_broker(unreachable, add):
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(OperationalError):
            add.delay(1)


def test_arguments_that_cant_be_serialised_are_the_callers_mistake(unreachable, add):
    for options in ({}, {"outbox": True}):
        with pytest.raises(EncodeError):
            add.apply_async((object(),), **options)

    assert rows() == []


def test_after_one_failure_the_broker_is_not_tried_for_each_message(unreachable, add, station):
    group(add.s(number) for number in range(20)).delay()
    assert len(rows()) == 20

    station.app.conf.task_publish_retry_policy = {"max_retries": 1000}  # trying would take for ever
    add.delay()

    assert len(rows()) == 21


def test_an_outage_is_believed_for_as_long_as_it_took_to_notice_within_bounds():
    now = [100.0]
    outage = Outage(clock=lambda: now[0])

    for attempt, pause in ((0.1, 2), (12, 12), (300, 30)):
        outage.begin(attempt)
        now[0] += pause - 0.1
        assert outage.goes_on()
        now[0] += 0.2
        assert not outage.goes_on()


def test_under_an_event_loop_the_message_is_written_from_a_thread(unreachable, add, transactional_db):
    async def view():
        return add.delay(1)

    result = asyncio.run(view())

    assert [row.task_id for row in rows()] == [result.id]


# In the transaction of the caller


def test_the_caller_decides_by_option_task_or_setting_to_go_through_the_outbox(station, add, settings):
    add.apply_async(outbox=True)
    add.outbox = True
    add.delay()
    add.apply_async(outbox=False)
    add.outbox = None
    settings.TASKKIT = {"OUTBOX": "always"}
    add.delay()

    assert reasons() == ["transactional"] * 3
    assert station.waiting() == 1
    assert "outbox" not in station.take().properties


def test_a_rollback_takes_the_message_along(station, add):
    with transaction.atomic():
        add.apply_async(outbox=True)
        transaction.set_rollback(True)

    assert rows() == []


def test_a_message_that_has_to_be_transactional_is_not_published_when_the_database_refuses_it(station, add):
    with (
        transaction.atomic(),
        connection.execute_wrapper(refuse_inserts),
        pytest.raises(DatabaseError, match="no space"),
    ):
        add.apply_async(outbox=True)

    assert station.waiting() == 0


def test_on_commit_writes_the_row_in_the_transaction_itself(station, settings, django_capture_on_commit_callbacks):
    @station.app.task(name="tests.paid", base=DjangoTask)
    def paid(order): ...

    with django_capture_on_commit_callbacks() as callbacks:
        paid.apply_async_on_commit((1,), outbox=True)
        settings.TASKKIT = {"OUTBOX": "always"}
        paid.delay_on_commit(2)
        settings.TASKKIT = {}
        paid.delay_on_commit(3)

    assert [row.envelope.payload()[0] for row in rows()] == [[1], [2]]
    assert len(callbacks) == 1


def test_chains_groups_and_chords_go_through_it_with_set(station, add):
    chain(add.s(1).set(outbox=True), add.s(2)).delay()
    group(add.s(3).set(outbox=True), add.s(4).set(outbox=True)).delay()
    chord([add.s(5).set(outbox=True)], add.s()).delay()

    assert [row.envelope.payload()[0] for row in rows()] == [[1], [3], [4], [5]]
    assert station.waiting() == 0
    embed = rows()[0].envelope.payload()[2]
    assert embed["chain"][0]["task"] == "tests.add"


def test_a_retry_goes_through_it(station):
    @station.app.task(name="tests.flaky", bind=True)
    def flaky(self):
        if not self.request.retries:
            raise self.retry(countdown=0, outbox=True)
        return "done"

    result = flaky.delay()
    station.run_all()
    assert [(row.task_id, row.headers["retries"]) for row in rows()] == [(result.id, 1)]

    Relay(station.app).run_once()
    station.run_all()
    assert result.get(timeout=5) == "done"


def test_the_relays_own_task_never_waits_for_the_relay(station, settings):
    settings.TASKKIT = {"OUTBOX": "always"}

    station.app.tasks[RELAY_TASK].delay()

    assert rows() == []
    assert station.waiting() == 1


def test_a_retry_that_the_broker_does_not_take_is_kept_and_the_task_is_no_dead_letter(unreachable, station):
    @station.app.task(name="tests.failing", base=BaseTaskWithRetry)
    def failing():
        raise ConnectionError

    result = failing.delay()
    (row,) = rows()
    with Producer(station._connection) as producer:
        message = {"content_type": row.content_type, "content_encoding": row.content_encoding, "headers": row.headers}
        producer.publish(row.body, routing_key=station.queue, **message, **row.properties)
    station.run_next()

    assert result.state == "RETRY"
    assert [row.headers["retries"] for row in rows()] == [0, 1]
    assert not DeadLetter.objects.exists()


# The very same message


OPTIONS = {
    "plain": {},
    "headers": {"headers": {"tenant": "t1", "traceparent": "00-abc-01"}},
    "eta": {"countdown": 30},
    "expires": {"expires": 3600},
    "priority": {"priority": 7},
    "time limits": {"time_limit": 30, "soft_time_limit": 20},
    "shadow": {"shadow": "another name"},
    "transient": {"delivery_mode": 1},
    "pickle": {"serializer": "pickle"},
    "parents": {"root_id": "root", "parent_id": "parent", "group_id": "g", "group_index": 3},
    "reply to": {"reply_to": "mailbox"},
    "stamps": {"stamped_headers": ["stamp"], "stamp": ["s1"]},
    "ignored result": {"ignore_result": True},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_the_relayed_message_is_the_one_that_would_have_been_published(station, add, options, monkeypatch):
    now = timezone.now()
    monkeypatch.setattr(station.app, "now", lambda: now)
    links = {"link": [add.s(8)], "link_error": [add.s(9)], "chain": [add.s(10)], "chord": add.s(11)}
    arguments = {"args": (1, "é"), "kwargs": {"at": now, "deep": {"list": [1, None]}}, "task_id": "the-id", **links}

    add.apply_async(**arguments, **options)
    published = sent(station)
    add.apply_async(**arguments, **options, outbox=True)
    Relay(station.app).run_once()

    assert sent(station) == published
    assert station.waiting() == 0
    assert rows() == []


def test_its_time_in_the_queue_begins_when_the_broker_gets_it(station, add):
    add.apply_async((1,), outbox=True)
    (row,) = rows()
    Relay(station.app).run_once()

    assert station.take().headers["taskkit_sent_at"] > row.headers["taskkit_sent_at"]


def test_a_compressed_message_is_relayed_as_it_was_before_compression(station, add):
    result = add.apply_async(("x" * 1000,), compression="gzip", outbox=True)
    Relay(station.app).run_once()

    message = station.take()
    assert "compression" not in message.headers
    station.run(message)
    assert result.get(timeout=5) == ["x" * 1000]


def test_expires_stays_a_header_and_is_no_time_to_live_at_the_broker(station, add):
    add.apply_async(expires=3600)

    message = station.take()
    assert message.headers["expires"]
    assert "expiration" not in message.properties


# Long delays


@pytest.fixture
def short_hold(settings):
    settings.TASKKIT = {"LONG_DELAY": 100}


def test_a_delay_longer_than_the_broker_holds_safely_waits_in_the_outbox(station, add, short_hold, relay_is_alive):
    add.apply_async(countdown=99)
    add.apply_async(countdown=5000)
    add.apply_async(eta=timezone.now() + timedelta(seconds=300))

    first, second = rows()
    assert station.waiting() == 1
    assert first.reason == second.reason == "long_delay"
    assert 4990 < (first.due_at - timezone.now()).total_seconds() <= 5000
    assert Relay(station.app).run_once().published == 0
    tomorrow = timezone.now() + timedelta(days=1)
    assert Relay(station.app, clock=lambda: tomorrow).run_once().published == 2
    assert station.waiting() == 3


def test_without_a_relay_a_long_delay_goes_to_the_broker_and_one_warning_names_the_remedy(
    station, add, short_hold, caplog
):
    for _ in range(3):
        add.apply_async(countdown=5000)

    assert station.waiting() == 3
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "manage.py taskkit relay" in warnings[0]


def test_a_relay_that_has_not_been_seen_for_two_minutes_counts_as_none(station, add, short_hold):
    long_ago = timezone.now() - timedelta(minutes=3)
    RelayHeartbeat.objects.create(name="old", started_at=long_ago, seen_at=long_ago)

    add.apply_async(countdown=5000)

    assert station.waiting() == 1


def test_a_long_delay_goes_to_the_broker_if_the_database_does_not_take_it(station, add, short_hold, relay_is_alive):
    with transaction.atomic(), connection.execute_wrapper(refuse_inserts):
        add.apply_async(countdown=5000)

    assert station.waiting() == 1


def test_a_message_with_a_long_delay_that_could_not_be_published_waits_until_it_is_due(unreachable, add, short_hold):
    add.apply_async(countdown=5000)
    add.apply_async(countdown=50)

    assert [row.due_at is None for row in rows()] == [False, True]


def test_a_message_may_ask_to_wait_there_for_a_short_delay_too(station, add, relay_is_alive):
    add.apply_async(countdown=5, outbox="until_due", headers={"taskkit_waits_for": "the budget is spent"})
    add.apply_async(outbox="until_due")

    (row,) = rows()
    assert (row.reason, row.due_at is None, row.last_error) == ("put_off", False, "the budget is spent")
    assert station.waiting() == 1


def test_what_asks_to_wait_there_goes_to_the_broker_where_there_is_no_relay(station, add):
    add.apply_async(countdown=5, outbox="until_due")

    assert rows() == []
    assert station.waiting() == 1


# Around it


def test_installing_twice_changes_nothing(station, add):
    hooks.install()
    hooks.install()

    add.apply_async(outbox=True)
    add.delay()

    assert len(rows()) == 1
    assert station.waiting() == 1


@pytest.mark.parametrize("given", [None, False, True])
def test_rabbitmq_is_asked_to_confirm_unless_the_project_says_otherwise(station, given):
    station.app.conf.broker_url = "amqp://127.0.0.1:1"
    if given is not None:
        station.app.conf.broker_transport_options = {"confirm_publish": given}

    connections = (station.app.connection_for_write(), station.app.connection(), station.app.pool.connection)

    expected = True if given is None else given
    assert {connection.transport_options["confirm_publish"] for connection in connections} == {expected}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1", "memory://", "filesystem://"])
def test_other_brokers_are_not_asked_to_confirm(station, url):
    station.app.conf.broker_url = url

    assert "confirm_publish" not in station.app.connection_for_write().transport_options


@pytest.mark.parametrize(("given", "expected"), [({}, 10), ({"socket_timeout": 3}, 3)])
def test_a_redis_that_says_nothing_is_not_waited_for_without_end(station, given, expected):
    station.app.conf.update(broker_url="redis://127.0.0.1:1", broker_transport_options=given)

    assert station.app.connection_for_write().transport_options["socket_timeout"] == expected
    assert "socket_timeout" not in station.app.connection_for_read().transport_options or given


def test_a_workers_connection_for_events_is_left_as_it_is(station):
    station.app.conf.broker_url = "amqp://127.0.0.1:1"

    assert "confirm_publish" not in station.app.connection_for_write(heartbeat=None).transport_options


def test_events_about_a_task_follow_it_only_if_it_was_published(station, add):
    station.app.conf.task_send_sent_event = True
    events = []
    dispatcher = station.app.amqp._event_dispatcher
    original = dispatcher.publish

    def publish(kind, fields, producer, **options):
        events.append((kind, fields["uuid"]))
        return original(kind, fields, producer, **options)

    dispatcher.publish = publish
    published = add.delay()
    kept = add.apply_async(outbox=True)

    assert events == [("task-sent", published.id), ("task-sent", kept.id)]
    assert station.waiting() == 1


def refuse_events(producer):
    publish = producer.channel.basic_publish

    def basic_publish(message, **options):
        if options["routing_key"] == "task.sent":
            raise OSError("the connection is lost")
        return publish(message, **options)

    producer.channel.basic_publish = basic_publish


def test_an_event_that_could_not_be_sent_waits_in_celerys_dispatcher(station, add):
    station.app.conf.update(task_send_sent_event=True, task_publish_retry=False)

    with station.app.connection_for_write() as broker:
        producer = station.app.amqp.Producer(broker)
        refuse_events(producer)
        result = add.apply_async(producer=producer)

    [(event, *_rest)] = station.app.amqp._event_dispatcher._outbound_buffer
    assert event["uuid"] == result.id
    assert station.waiting() == 1


def test_the_caller_is_not_told_of_an_event_that_a_dispatcher_does_not_keep(station, add, caplog):
    station.app.conf.update(task_send_sent_event=True, task_publish_retry=False)
    dispatcher = station.app.events.Dispatcher(enabled=False, buffer_while_offline=False)

    with station.app.connection_for_write() as broker:
        producer = station.app.amqp.Producer(broker)
        refuse_events(producer)
        add.apply_async(producer=producer, event_dispatcher=dispatcher)

    assert station.waiting() == 1
    assert rows() == []
    assert "its task-sent event was not" in caplog.text


def test_threads_publish_at_the_same_time_through_one_app(station, add, transactional_db):
    def work():
        try:
            for _ in range(10):
                add.apply_async(outbox=True)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(rows()) == 40
