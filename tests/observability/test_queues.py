import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from celery import Celery
from kombu.transport import memory

from django_taskkit.envelope import SENT_AT_HEADER
from django_taskkit.exceptions import BrokerUnreachableError
from django_taskkit.observability import queues
from django_taskkit.observability.brokers.ages import Unknown, age_by, age_of, oldest_of
from django_taskkit.observability.deadline import within


@pytest.fixture
def app():
    app = Celery("queues", broker="memory://", set_as_current=False, fixups=[])
    yield app
    app.close()


def put(app, queue, **headers):
    with app.connection_for_write() as connection:
        connection.Producer(auto_declare=False).publish("{}", exchange="", routing_key=queue, headers=headers)


def in_seconds(seconds):
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


def test_a_queue_in_memory_tells_how_much_waits_and_since_when(app):
    put(app, "memory-1", **{SENT_AT_HEADER: time.time() - 60})
    put(app, "memory-1", **{SENT_AT_HEADER: time.time() - 5})

    [state] = queues.look(app, ["memory-1"])

    assert (state.name, state.depth, state.consumers, state.kind) == ("memory-1", 2, None, "memory")
    assert 60 <= state.oldest < 120


def test_a_queue_that_nobody_made_is_empty_and_is_not_made(app):
    [state] = queues.look(app, ["memory-2"])

    assert (state.depth, state.oldest) == (0, None)
    assert "memory-2" not in memory.Channel.queues


def test_queues_come_in_the_order_of_their_names_each_once(app):
    assert [state.name for state in queues.look(app, ["b", "a", "b"])] == ["b", "a"]


def test_without_names_nobody_is_asked():
    app = Celery("none", broker="redis://127.0.0.1:1/0", set_as_current=False, fixups=[])

    assert queues.look(app, []) == []


def test_a_message_waits_since_it_was_sent(app):
    assert 30 <= age_by(app, {SENT_AT_HEADER: time.time() - 30}) < 60


def test_a_message_with_an_eta_waits_since_then(app):
    assert 10 <= age_by(app, {SENT_AT_HEADER: time.time() - 3600, "eta": in_seconds(-10)}) < 60


def test_a_message_whose_eta_is_to_come_does_not_wait(app):
    assert age_by(app, {SENT_AT_HEADER: time.time() - 3600, "eta": in_seconds(600)}) is Unknown.NOT_DUE


@pytest.mark.parametrize("sent_at", [None, True, "yesterday", float("nan"), float("inf"), [], {}])
def test_what_says_no_time_of_its_own_has_no_age(app, sent_at):
    assert age_by(app, {SENT_AT_HEADER: sent_at}) is Unknown.NOT_SAID


@pytest.mark.parametrize("raw", [b"", b"42", b"[]", b"\xff", b"{}", b'{"headers": 7}', b"[" * 100_000])
def test_what_is_no_message_has_no_age(app, raw):
    assert age_of(app, raw) is Unknown.NOT_SAID


def test_a_message_from_a_clock_that_is_ahead_is_new(app):
    assert age_by(app, {SENT_AT_HEADER: time.time() + 500}) == 0


def test_the_oldest_is_that_of_those_whose_age_is_known():
    assert oldest_of([Unknown.NOT_SAID, 3.0, 7.0, Unknown.NOT_DUE]) == 7.0
    assert oldest_of([Unknown.NOT_SAID]) is None
    assert oldest_of([]) is None


class CountingChannel(memory.Channel):
    def _size(self, queue):
        if queue == "refused":
            raise PermissionError("not yours")
        return 12


class Counting(memory.Transport):
    """A broker that can say how much waits, and no more, as Amazon SQS."""

    Channel = CountingChannel
    driver_type = "counting"


def test_of_other_brokers_the_number_is_told_and_a_queue_that_refuses_harms_no_other():
    app = Celery("counting", broker="memory://", set_as_current=False, fixups=[])
    app.conf.broker_transport = f"{__name__}:Counting"

    refused, counted = queues.look(app, ["refused", "counted"])

    assert (counted.depth, counted.oldest, counted.kind) == (12, None, "counting")
    assert (refused.depth, refused.note) == (None, "PermissionError: not yours")


def test_a_broker_that_does_not_answer_is_given_up(app):
    never = threading.Event()
    try:
        with pytest.raises(BrokerUnreachableError, match=r"no answer in 0\.05 s"):
            queues.on_broker(app, lambda connection: never.wait(), timeout=0.05)
    finally:
        never.set()


def test_what_a_broker_says_when_it_fails_is_one_error(app):
    def fail(connection):
        raise ConnectionResetError("gone")

    with pytest.raises(BrokerUnreachableError, match="gone"):
        queues.on_broker(app, fail, timeout=5)


def test_an_answer_in_time_is_returned_and_an_error_raised_as_it_is():
    def fail():
        raise LookupError("no such")

    assert within(5, lambda: "answer", "test") == "answer"
    assert within(5, lambda: None, "test") is None
    with pytest.raises(LookupError, match="no such"):
        within(5, fail, "test")
