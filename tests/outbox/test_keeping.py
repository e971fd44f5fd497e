"""In whose transaction a message is kept, and for which broker."""

import asyncio
import socket
from datetime import timedelta

import pytest
from celery import Celery, chain, chord
from django.db import connection, connections, transaction
from django.utils import timezone
from kombu import Connection, Producer
from kombu.exceptions import EncodeError, OperationalError

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.exceptions import PublishError
from django_taskkit.models import DeadLetter, OutboxMessage, RelayHeartbeat
from django_taskkit.outbox import keeping
from django_taskkit.outbox.presence import RelayWatch

ELSEWHERE = "redis://127.0.0.1:2/0"
AT_ONCE = {"max_retries": 0, "interval_start": 0, "interval_step": 0}


@pytest.fixture
def add(station):
    @station.app.task(name="tests.add")
    def add(*numbers): ...

    return add


def kept():
    return list(OutboxMessage.objects.values_list("task_id", "reason"))


def refuse(*args, **kwargs):
    raise keeping.OperationalError("no room")


def hand_over(station):
    """Put the one message of the outbox on the queue, past a broker that is out of reach."""
    row = OutboxMessage.objects.get()
    with Producer(station._connection) as producer:
        message = {"content_type": row.content_type, "content_encoding": row.content_encoding, "headers": row.headers}
        producer.publish(row.body, routing_key=station.queue, **message, **row.properties)
    row.delete()


# What a task sends under its own id is no part of its data


def retry_in_transaction(self):
    with transaction.atomic():
        raise self.retry(countdown=5000, max_retries=1)


def replace_in_transaction(self):
    with transaction.atomic():
        raise self.replace(self.app.tasks["tests.add"].si(1))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("base", [None, BaseTaskWithRetry])
@pytest.mark.parametrize("body", [retry_in_transaction, replace_in_transaction])
def test_a_task_that_ends_in_its_own_transaction_and_goes_on_in_the_outbox_is_not_rolled_back(
    station, add, settings, base, body
):
    task = station.app.task(body, name="tests.atomic", bind=True, **({"base": base} if base else {}))
    result = task.apply_async(outbox=False)
    settings.TASKKIT = {"OUTBOX": "always"}

    station.run_next()

    if connection.vendor == "sqlite":  # the task's own transaction may hold the only lock there is
        assert len(kept()) + station.waiting() == 1
    else:
        assert kept() == [(result.id, "transactional")]
    assert not DeadLetter.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_retry_that_finds_neither_broker_nor_room_in_the_outbox_is_a_dead_letter(unreachable, station, monkeypatch):
    @station.app.task(name="tests.atomic", bind=True)
    def atomic(self):
        monkeypatch.setattr(keeping, "_insert", refuse)
        with transaction.atomic():
            raise self.retry(countdown=1)

    result = atomic.delay()
    hand_over(station)
    station.run_next()

    assert [(letter.task_id, letter.reason) for letter in DeadLetter.objects.all()] == [(result.id, "publish_failed")]


@pytest.mark.django_db(transaction=True)
def test_what_follows_a_task_that_turned_autocommit_off_is_not_rolled_back_with_it(station, add, settings):
    @station.app.task(name="tests.off")
    def off():
        connection.ensure_connection()
        transaction.set_autocommit(False)

    chain(off.si().set(outbox=False), add.si(2)).delay()
    settings.TASKKIT = {"OUTBOX": "always"}
    station.run_next()
    connection.close()  # as Celery does after a task

    assert [reason for _id, reason in kept()] == ["transactional"]


@pytest.mark.django_db(transaction=True)
def test_outside_a_worker_whoever_turned_autocommit_off_commits_the_message(station, add):
    if connection.vendor == "sqlite":
        pytest.skip("Django does not manage transactions by hand on SQLite")
    connection.ensure_connection()
    transaction.set_autocommit(False)
    try:
        add.apply_async(outbox=True)
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)

    assert kept() == []


# Where nobody's data depends on it


@pytest.mark.django_db(transaction=True)
def test_outside_a_transaction_a_message_goes_to_the_broker_if_the_database_does_not_take_it(
    station, add, settings, monkeypatch
):
    settings.TASKKIT = {"OUTBOX": "always"}
    monkeypatch.setattr(keeping, "_insert", refuse)

    add.delay(1)

    assert station.waiting() == 1


@pytest.mark.django_db(transaction=True)
def test_a_chords_body_that_finds_neither_broker_nor_room_in_the_outbox_is_a_dead_letter(
    unreachable, station, add, monkeypatch
):
    @station.app.task(name="tests.total")
    def total(numbers): ...

    @station.app.task(name="tests.number")
    def number(value):
        return value

    result = chord([number.s(7)])(total.s())
    hand_over(station)
    monkeypatch.setattr(keeping, "_insert", refuse)
    station.run_next()

    (letter,) = DeadLetter.objects.all()
    assert (letter.task_id, letter.task_name, letter.reason) == (result.id, "tests.total", "publish_failed")
    assert letter.envelope.payload()[0] == [[7]]


@pytest.mark.django_db(transaction=True)
def test_anybody_else_gets_the_error(unreachable, add, monkeypatch):
    monkeypatch.setattr(keeping, "_insert", refuse)

    with pytest.raises(OperationalError):
        add.delay(1)

    assert not DeadLetter.objects.exists()


# The relay's broker, and no other


@pytest.mark.django_db
def test_a_message_for_another_broker_is_not_kept_and_its_outage_is_not_ours(station, add):
    for _ in range(2):
        with Connection(ELSEWHERE, transport_options=AT_ONCE) as other, pytest.raises(OperationalError):
            add.apply_async(connection=other, retry=False)
    add.delay()

    assert kept() == []
    assert station.waiting() == 1


@pytest.mark.django_db
def test_a_message_of_another_app_with_another_broker_is_not_kept(station):
    other = Celery("other", broker=ELSEWHERE, set_as_current=False, fixups=[])
    other.conf.update(task_publish_retry=False, broker_transport_options=AT_ONCE)

    with pytest.raises(OperationalError):
        other.send_task("tests.elsewhere")

    assert kept() == []


@pytest.mark.django_db
def test_to_ask_for_the_outbox_and_for_another_broker_is_refused_with_the_remedy(station, add):
    with Connection("redis://ann:secret@127.0.0.1:2/0") as other, pytest.raises(PublishError) as caught:
        add.apply_async(connection=other, outbox=True)

    assert "without it" in str(caught.value)
    assert "127.0.0.1:2" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.django_db
def test_a_connection_to_one_of_the_brokers_alternatives_is_the_relays(station, add):
    station.app.conf.broker_url = f"{ELSEWHERE};redis://127.0.0.1:3/0"

    with Connection("redis://127.0.0.1:3/0", transport_options=AT_ONCE) as other:
        add.apply_async(connection=other, retry=False)

    assert [reason for _id, reason in kept()] == ["publish_failed"]


# The message as it would have been


@pytest.mark.django_db
def test_a_header_that_no_broker_could_carry_is_the_callers_mistake(station, add):
    with pytest.raises((EncodeError, TypeError)):
        add.apply_async(headers={"odd": object()}, outbox=True)

    assert kept() == []


# Whether a relay is there


@pytest.mark.django_db(transaction=True)
def test_a_relay_is_seen_from_a_coroutine_as_well():
    RelayHeartbeat.objects.create(name="other", started_at=timezone.now(), seen_at=timezone.now())
    watch = RelayWatch()

    async def view():
        return watch.is_alive()

    assert asyncio.run(view())
    assert watch.is_alive()


@pytest.mark.django_db(transaction=True)
def test_a_database_that_does_not_answer_is_believed_for_seconds_only():
    RelayHeartbeat.objects.create(name="other", started_at=timezone.now(), seen_at=timezone.now())
    now = [0.0]
    watch = RelayWatch(clock=lambda: now[0])

    def refuse(*args):
        raise keeping.OperationalError("gone")

    with connection.execute_wrapper(refuse):
        assert not watch.is_alive()
    assert not watch.is_alive()
    now[0] += timedelta(seconds=10).total_seconds()

    assert watch.is_alive()


@pytest.mark.django_db(transaction=True)
def test_a_silent_database_gives_back_a_caller_whose_broker_is_away(station, add, monkeypatch):
    if connection.vendor == "sqlite":
        pytest.skip("SQLite is a file, which does not fall silent")
    station.app.conf.broker_url = ELSEWHERE
    monkeypatch.setattr(keeping, "WRITE_TIMEOUT", 1.0)
    connection.close()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        database = connections["default"].settings_dict
        monkeypatch.setitem(database, "HOST", "127.0.0.1")
        monkeypatch.setitem(database, "PORT", str(silent.getsockname()[1]))
        options = {"connect_timeout": 1, **({"read_timeout": 1} if connection.vendor == "mysql" else {})}
        monkeypatch.setitem(database, "OPTIONS", {**database["OPTIONS"], **options})

        with pytest.raises(OperationalError):
            add.apply_async(retry=False)
