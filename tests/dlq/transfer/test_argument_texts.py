import pytest
from celery.utils.saferepr import saferepr

from django_taskkit.dlq.transfer.argument_texts import (
    AMBIGUOUS,
    SHORTENED,
    UNREADABLE,
    UnreadableArgumentsError,
    arguments_in,
)


@pytest.mark.parametrize(
    "value",
    [
        (),
        {},
        (7,),
        (1, 2.5, True, None, -3, 10**30),
        ("it's", 'say "hi"', "", " ", "tê\U0001f4a5"),
        ("two\nlines\r\n", "a\ttab"),
        ("C:\\new\\table", r"\d+\s", "\\u0041"),
        ([1, [2, "x"]], {"a": {"b": "c"}}),
        {"to": "a@b.c", "ids": [1, 2]},
        ({1: "a", None: "b"},),
        ("...in the middle... of it",),
    ],
)
def test_reads_what_celery_wrote(value):
    assert arguments_in(saferepr(value, 1024)) == value


@pytest.mark.parametrize(
    "value",
    [
        ("x" * 2000,),
        ("word " + "x" * 2000,),
        (list(range(1000)),),
        tuple(range(1000)),
        {"text": "x" * 2000, "more": 1},
        ([[[[1]]]],),
        {"a": {"b": {"c": {"d": 1}}}},
        ("wait...",),
        {"loading...": 1},
    ],
)
def test_refuses_what_may_be_shortened(value):
    with pytest.raises(UnreadableArgumentsError, match=SHORTENED):
        arguments_in(saferepr(value, 1024))


@pytest.mark.parametrize(
    "text",
    [
        "(datetime.datetime(2026, 1, 1, 0, 0),)",
        "(UUID('12345678123456781234567812345678'),)",
        "(<Order: 7>,)",
        "(nan,)",
        "***",
        "",
        "(",
        "(__import__('os').getpid(),)",
        "(" * 5000,
        "(1).__class__",
    ],
)
def test_refuses_what_is_no_literal(text):
    with pytest.raises(UnreadableArgumentsError, match=UNREADABLE):
        arguments_in(text)


@pytest.mark.parametrize("value", [("a\\", "b\\"), ("a\\", ", x"), ("',",), (b"\xff\xfe",), ("a\\'b",)])
def test_never_takes_one_value_for_another(value):
    """Celery escapes quotes, and not the backslash that escapes them."""
    try:
        found = arguments_in(saferepr(value, 1024))
    except UnreadableArgumentsError:
        return
    assert found == value


def test_refuses_quotes_that_can_be_read_in_two_ways():
    with pytest.raises(UnreadableArgumentsError, match=AMBIGUOUS):
        arguments_in(saferepr(("the dogs', the cats",), 1024))


def test_reads_what_a_project_wrote_with_repr():
    assert arguments_in(repr(("it's",))) == ("it's",)
