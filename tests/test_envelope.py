"""An envelope is the message as it travelled, and the same message goes out again."""

import pickle
from datetime import datetime, timezone

import pytest
from kombu.message import Message

from django_taskkit.envelope import Envelope, UndecodableError


def envelope(**changes):
    values = {
        "body": b'[[1], {"a": 2}, {}]',
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "headers": {"id": "x", "task": "t", "retries": 3},
        "routing_key": "q",
        "queue": "q",
    }
    return Envelope(**{**values, **changes})


def delivered(station, exchange="", routing_key="", **message):
    message.setdefault("body", b"[]")
    delivery = {"exchange": exchange, "routing_key": routing_key}
    return Envelope.from_message(Message(delivery_info=delivery, **message), station.app)


def test_a_message_is_kept_byte_for_byte(station):
    @station.app.task
    def t(*args, **kwargs): ...

    t.apply_async((1, "é"), {"b": None}, headers={"tenant": "t1"}, priority=4, expires=100)
    message = station.take()

    kept = Envelope.from_message(message, station.app)

    assert kept.body == message.body
    assert kept.headers == message.headers
    assert kept.properties["priority"] == 4
    assert kept.properties["correlation_id"] == kept.task_id
    assert (kept.exchange, kept.routing_key, kept.queue) == ("", station.queue, station.queue)


def test_what_the_transport_added_is_left_out(station):
    kept = delivered(
        station,
        properties={
            "delivery_tag": "1",
            "delivery_info": {},
            "body_encoding": "base64",
            "expiration": "9",
            "priority": 1,
        },
        headers={
            "id": "x",
            "x-death": [1],
            "x-delivery-count": 2,
            "redelivered": True,
            "compression": "gzip",
        },
    )

    assert kept.properties == {"priority": 1}
    assert kept.headers == {"id": "x"}


def test_a_body_that_is_not_utf8_stays_as_it_is(station):
    assert delivered(station, body=b"\xff\xfe\x00").body == b"\xff\xfe\x00"


def test_a_body_that_came_as_text_becomes_the_bytes_it_was(station):
    assert delivered(station, body="é", content_encoding="latin-1").body == b"\xe9"
    assert delivered(station, body="\ud800", content_encoding="nonsense").body == b"\xed\xa0\x80"


def test_sent_again_it_has_the_same_body_and_fresh_retries():
    original = envelope(headers={"id": "x", "retries": 3, "expires": "2020", "eta": "2020", "tenant": "t1"})

    again = original.again(generation=2)

    assert isinstance(dict(again.headers).pop("taskkit_requeued_at"), float)
    assert again.body == original.body
    assert {**again.headers, "taskkit_requeued_at": 0} == {
        "id": "x", "retries": 0, "expires": None, "eta": None, "tenant": "t1", "taskkit_generation": 2,
        "taskkit_requeued_at": 0,
    }  # fmt: skip
    assert again.generation == 2


def test_sent_again_it_can_wait():
    eta = datetime(2026, 11, 21, tzinfo=timezone.utc)

    assert envelope().again(generation=1, eta=eta).headers["eta"] == "2026-11-21T00:00:00+00:00"


@pytest.mark.parametrize("value", ["7", None, -1, 2.5, [1]])
def test_numbers_in_headers_that_are_none_count_as_zero(value):
    assert envelope(headers={"retries": value, "taskkit_generation": value}).generation == 0


def test_the_payload_can_be_read():
    assert envelope().payload() == ([1], {"a": 2}, {})


def test_a_pickle_is_never_opened():
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was opened",))

    bomb = envelope(body=pickle.dumps(Bomb()), content_type="application/x-python-serialize", content_encoding="binary")

    with pytest.raises(UndecodableError, match="'application/x-python-serialize' is not decoded"):
        bomb.payload()


@pytest.mark.parametrize("body", [b"{", b"\xff", b"42", b"[1]"])
def test_a_body_that_is_no_task_message_can_not_be_read(body):
    with pytest.raises(UndecodableError, match="the body is not a task message"):
        envelope(body=body).payload()
