"""Whatever a failing task hands over becomes text that can be stored and shown."""

import pytest

from django_taskkit.dlq.text import bounded, class_of, message_of, shortened, storable, traceback_of


class BrokenStr(Exception):
    def __str__(self):
        raise RuntimeError("no message for you")


def raised(exc):
    try:
        raise exc
    except type(exc) as caught:
        return caught


def test_nul_and_lone_surrogates_become_visible():
    assert storable("a\x00b\ud800c") == "a\\x00b\\ud800c"


def test_other_text_stays_as_it_is():
    assert storable("Đơn hàng 訂單 🚚") == "Đơn hàng 訂單 🚚"


def test_long_text_keeps_both_ends_and_says_what_is_missing():
    text = shortened("a" * 600 + "b" * 600, 900)

    assert text.startswith("a" * 600)
    assert text.endswith("b" * 300)
    assert "[... 300 characters left out by django-taskkit ...]" in text


def test_long_values_stay_distinct_in_a_column():
    one, other = bounded("x" * 300 + "1"), bounded("x" * 300 + "2")

    assert len(one) == len(other) == 255
    assert one != other


def test_none_is_an_empty_column():
    assert bounded(None) == ""


def test_an_exception_whose_message_raises_is_described():
    message = message_of(BrokenStr(), 100)

    assert message == "[the message can't be shown: BrokenStr.__str__ raised RuntimeError]"


def test_an_exception_whose_message_raises_has_a_traceback():
    assert "BrokenStr" in traceback_of(raised(BrokenStr()), 10_000)


@pytest.mark.parametrize(("exc", "name"), [(ValueError(), "ValueError"), (BrokenStr(), f"{__name__}.BrokenStr")])
def test_the_class_of_an_exception_is_its_dotted_path(exc, name):
    assert class_of(exc) == name
