"""Whatever an error carries, what it asks for is a time that can be waited, a refusal, or nothing."""

from datetime import datetime
from unittest import mock

import pytest

from django_taskkit.base_tasks.asked import Refusal, asked_delay
from django_taskkit.base_tasks.asked.times import YEAR
from tests.base_tasks.test_asked import NOW, Asking, Response

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
st = hypothesis.strategies

TEXTS = st.one_of(
    st.text(max_size=60),
    st.from_regex(r"[0-9]{1,40}(\.[0-9]{1,9})?"),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.datetimes().map(datetime.isoformat),
    st.from_regex(r'"[a-z;,=]*";r=[0-9]{1,20};t=[0-9.]{1,20}'),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300),
    st.floats(),
    st.decimals(),
    st.complex_numbers(),
    st.binary(max_size=60),
    st.timedeltas(),
    st.datetimes(timezones=st.one_of(st.none(), st.timezones())),
    TEXTS,
    st.builds(mock.MagicMock),
)
NAMES = st.sampled_from(
    [
        *("Retry-After", "Date", "X-RateLimit-Reset", "X-RateLimit-Remaining", "RateLimit", "RateLimit-Reset"),
        *("x-amz-retry-after", "retry-after-ms", b"Retry-After"),
    ]
)
HEADERS = st.one_of(
    VALUES, st.dictionaries(NAMES, VALUES), st.lists(st.tuples(NAMES, VALUES)), st.lists(VALUES, max_size=3)
)
METADATA = st.lists(st.tuples(st.sampled_from(["grpc-retry-pushback-ms", "grpc-status-details-bin", "x"]), VALUES))


@st.composite
def responses(draw):
    response = Response(draw(VALUES))
    response.headers = draw(HEADERS)
    return response


AWS = st.fixed_dictionaries(
    {
        "Error": st.one_of(VALUES, st.just({"Code": "SlowDown"})),
        "ResponseMetadata": st.one_of(
            VALUES, st.fixed_dictionaries({"HTTPHeaders": HEADERS, "RetryAttempts": VALUES, "HTTPStatusCode": VALUES})
        ),
    }
)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "retry_after": VALUES,
        "headers": HEADERS,
        "resp": HEADERS,
        "response": st.one_of(responses(), AWS, VALUES),
        "status_code": st.one_of(VALUES, st.just(429)),
        "wait": VALUES,
        "trailing_metadata": st.one_of(VALUES, METADATA.map(lambda pairs: lambda: pairs)),
    },
)
ERRORS = ATTRIBUTES.map(lambda attributes: Asking(**attributes))


@hypothesis.settings(max_examples=500, deadline=None)
@hypothesis.given(error=ERRORS, cause=ERRORS, now=st.sampled_from([0.0, NOW, 4e9]))
def test_it_never_raises_and_its_answer_makes_sense(error, cause, now):
    error.__cause__ = cause

    answer = asked_delay(error, now=now)

    assert answer is None or answer is Refusal.DO_NOT_RETRY or (type(answer) is float and 0 <= answer <= YEAR)


@hypothesis.given(data=st.binary())
def test_details_of_any_bytes_are_survived(data):
    error = Asking(trailing_metadata=lambda: [("grpc-status-details-bin", data)])

    answer = asked_delay(error, now=NOW)

    assert answer is None or 0 <= answer <= YEAR
