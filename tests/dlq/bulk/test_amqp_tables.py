"""The quick encoding of AMQP properties is py-amqp's, byte by byte."""

from datetime import datetime, timezone
from decimal import Decimal

import pytest
from amqp import Message
from amqp.exceptions import FrameSyntaxError

from django_taskkit.dlq.bulk.amqp_tables import QuickMessage

HEADERS = {
    "a message of Celery's": {
        "lang": "py",
        "task": "orders.pay",
        "id": "5f0c",
        "retries": 0,
        "timelimit": [None, 30.5],
        "stamps": {},
        "ignore_result": False,
        "shadow": None,
    },
    "no headers": {},
    "not ASCII": {"khách": "giao nhanh", "lone surrogate": "\ud800"},
    "numbers": {"least": -2147483647, "most": 2147483647, "long": 2147483648, "longer": -(2**62), "float": 1e300},
    "nested": {"a": {"b": [1, [True, {"c": None}], "d"]}, "empty": [[], {}]},
    "what is left to py-amqp": {
        "bytes": b"\x00\xff",
        "at": datetime(2026, 11, 21, tzinfo=timezone.utc),
        "price": Decimal("1.25"),
        "tuple": (1, 2),
    },
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_headers_are_encoded_as_by_py_amqp(headers):
    properties = {"application_headers": headers, "content_type": "application/json", "delivery_mode": 2}

    assert QuickMessage(b"", **properties)._serialize_properties() == Message(b"", **properties)._serialize_properties()


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"priority": 0, "correlation_id": "x" * 255, "reply_to": "", "message_id": "é", "type": "t"},
        {"timestamp": 1_795_289_150, "application_headers": {"id": "1"}},
        {"delivery_mode": "2", "app_id": "a", "cluster_id": "c", "expiration": "1000"},
    ],
)
def test_properties_are_encoded_as_by_py_amqp(properties):
    try:
        expected = Message(b"", **properties)._serialize_properties()
    except Exception as exc:
        with pytest.raises(type(exc)):
            QuickMessage(b"", **properties)._serialize_properties()
    else:
        assert QuickMessage(b"", **properties)._serialize_properties() == expected


def test_the_same_header_is_encoded_the_same_twice():
    first, second = (QuickMessage(b"", application_headers={"twice": 1})._serialize_properties() for _ in range(2))

    assert first == second


@pytest.mark.parametrize("headers", [{"what": object()}, {"set": {1}}, {"deep": [{"x": object()}]}])
def test_what_amqp_has_no_type_for_is_refused(headers):
    with pytest.raises(FrameSyntaxError):
        QuickMessage(b"", application_headers=headers)._serialize_properties()


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(Exception, match="ubyte format|255"):
        QuickMessage(b"", application_headers={"x" * 256: 1})._serialize_properties()
