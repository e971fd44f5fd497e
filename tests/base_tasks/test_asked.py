"""What an error asks for, read from whatever carries it; real libraries are in test_asked_libraries.py."""

import time
from datetime import datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from email.message import Message
from unittest import mock

import pytest

from django_taskkit.base_tasks.asked import DEPTH, Refusal, asked_delay
from django_taskkit.base_tasks.asked.times import YEAR

NOW = 1_793_000_000.0  # 2026-10-26 07:33:20 UTC
IN_A_MINUTE = "Mon, 26 Oct 2026 07:34:20 GMT"


class Asking(Exception):
    """An error with the attributes that a test gives it."""

    def __init__(self, **attributes):
        super().__init__("no")
        vars(self).update(attributes)


class Response:
    def __init__(self, status_code=None, **headers):
        self.status_code = status_code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def asked(**attributes):
    return asked_delay(Asking(**attributes), now=NOW)


def answered(status=None, **headers):
    return asked(response=Response(status, **headers))


class TestTheAttributeRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            (30, 30),
            (1.5, 1.5),
            (0, 0),
            (Decimal("2.5"), 2.5),
            ("30", 30),
            (b" 2.5 ", 2.5),
            (timedelta(minutes=2), 120),
            (datetime.fromtimestamp(NOW + 60, timezone.utc), 60),
            (datetime.fromtimestamp(NOW + 60, timezone(timedelta(hours=7))), 60),
            (datetime.fromtimestamp(NOW - 60, timezone.utc), 0),
            (IN_A_MINUTE, 60),
            ("2026-10-26T07:34:20Z", 60),
            ("2026-10-26T14:34:20+07:00", 60),
            (NOW + 60, 60),
            (str(int(NOW) + 60), 60),
            ((NOW + 60) * 1000, 60),
        ],
    )
    def test_may_be_written_in_many_ways(self, value, seconds):
        assert asked(retry_after=value) == pytest.approx(seconds)

    @pytest.mark.parametrize(
        "value",
        [
            *(None, True, -1, -0.5, float("nan"), float("inf"), -float("inf"), Decimal("nan"), Decimal("sNaN"), 1j),
            *("", "soon", "-5", "1e3", "٣٠", "5 s", "nan", "inf", "9" * 2000, b"\xff", timedelta(seconds=-1), object()),
            *([], [30], {}, {"seconds": 30}, int, lambda: 30),
        ],
        ids=str,
    )
    def test_that_makes_no_sense_asks_nothing(self, value):
        assert asked(retry_after=value) is None

    @pytest.mark.parametrize("value", [10**400, 1e300, 10.0**8, timedelta.max, datetime.max, "9" * 300])
    def test_that_is_far_away_asks_for_a_year(self, value):
        assert asked(retry_after=value) == YEAR

    @pytest.mark.skipif(not hasattr(time, "tzset"), reason="the system's time zone can't be set here")
    def test_is_in_local_time_if_it_has_no_time_zone(self, monkeypatch):
        try:
            monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
            time.tzset()

            assert asked(retry_after=datetime(2026, 10, 26, 14, 34, 20)) == 60
        finally:
            monkeypatch.undo()
            time.tzset()

    def test_comes_before_what_the_response_says(self):
        assert asked(retry_after=5, response=Response(429, Retry_After="50")) == 5

    def test_that_cant_be_read_leaves_it_to_the_response(self):
        assert asked(retry_after="soon", response=Response(429, Retry_After="50")) == 50


class TestRetryAfter:
    @pytest.mark.parametrize(
        "date",
        [IN_A_MINUTE, "Monday, 26-Oct-26 07:34:20 GMT", "Mon Oct 26 07:34:20 2026"],
        ids=["IMF-fixdate", "RFC 850", "asctime"],
    )
    def test_is_understood_in_all_three_forms_of_a_date(self, date):
        assert answered(503, Retry_After=date) == 60

    def test_in_seconds_is_understood(self):
        assert answered(503, Retry_After="120") == 120

    @pytest.mark.parametrize("status", [None, 200, 301, 404, 500])
    def test_counts_with_any_status(self, status):
        assert answered(status, Retry_After="120") == 120

    @pytest.mark.parametrize("name", ["retry-after-ms", "X-Ms-Retry-After-Ms", "X-Amz-Retry-After"])
    def test_is_overruled_by_its_more_exact_kin(self, name):
        assert asked(response=Response(429, **{name: "2500", "Retry-After": "3"})) == 2.5

    def test_in_milliseconds_has_an_end_too(self):
        assert answered(429, X_Amz_Retry_After="9" * 300) == YEAR

    def test_of_the_past_is_over(self):
        assert answered(503, Retry_After="Mon, 26 Oct 2026 07:00:00 GMT") == 0

    @pytest.mark.parametrize("skew", [timedelta(hours=-3), timedelta(hours=3)])
    def test_is_counted_from_the_servers_own_clock(self, skew):
        there = datetime.fromtimestamp(NOW, timezone.utc) + skew

        def stamp(moment):
            return moment.strftime("%a, %d %b %Y %H:%M:%S GMT")

        assert answered(503, Date=stamp(there), Retry_After=stamp(there + timedelta(minutes=5))) == 300
        assert answered(503, Date=stamp(there), Retry_After="300") == 300
        assert answered(429, Date=stamp(there), X_RateLimit_Reset=str(int(there.timestamp()) + 300)) == 300

    @pytest.mark.parametrize("date", ["Thu, 01 Jan 1970 00:00:00 GMT", "yesterday", "Mon, 26 Oct 2016 07:33:20 GMT"])
    def test_is_counted_from_ours_if_the_server_has_none(self, date):
        assert answered(503, Date=date, Retry_After=IN_A_MINUTE) == 60

    def test_comes_before_the_reset_of_a_rate_limit(self):
        assert answered(429, Retry_After="5", X_RateLimit_Reset="500", X_RateLimit_Remaining="0") == 5

    def test_that_cant_be_read_leaves_it_to_the_rate_limit(self):
        assert answered(429, Retry_After="-1", X_RateLimit_Reset="500") == 500


class TestTheResetOfARateLimit:
    @pytest.mark.parametrize("prefix", ["X-RateLimit", "x-rate-limit", "RateLimit"])
    @pytest.mark.parametrize("reset", ["60", str(int(NOW) + 60), str(int(NOW) * 1000 + 60_000), IN_A_MINUTE])
    def test_is_seconds_or_a_time(self, prefix, reset):
        assert asked(response=Response(429, **{f"{prefix}-Reset": reset})) == 60

    @pytest.mark.parametrize(
        ("status", "remaining", "counts"),
        [
            (429, None, True),
            (429, "7", True),
            (429, "0", True),
            (403, None, True),
            (403, "0", True),
            (403, "4999", False),
            (503, None, True),
            (503, "7", False),
            (500, None, False),
            (500, "0", True),
            (404, "12", False),
            (None, None, False),
        ],
    )
    def test_counts_only_for_a_request_that_was_turned_away(self, status, remaining, counts):
        headers = {} if remaining is None else {"X_RateLimit_Remaining": remaining}

        assert answered(status, X_RateLimit_Reset="60", **headers) == (60 if counts else None)

    def test_is_more_exact_as_discord_says_it(self):
        assert answered(429, X_RateLimit_Reset=str(int(NOW) + 2), X_RateLimit_Reset_After="1.25") == 1.25

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ('"default";r=0;t=30', 30),
            ('"burst";r=0;t=5, "day;r=0;t=9999, x";r=0;t=3600', 3600),
            ('"burst";r=7;t=5', None),
            ('"burst";r=7;t=5, "daily";pk=:cHsd=:;r=0;t=90', 90),
            ("limit=100, remaining=0, reset=40", 40),
            ("limit=100, remaining=3, reset=40", None),
            ('"default";r=0', None),
            (";;==,,;t=;r=", None),
        ],
    )
    def test_is_read_from_the_ietfs_combined_field(self, value, seconds):
        assert answered(403, RateLimit=value) == seconds

    def test_is_the_last_of_several_that_are_used_up(self):
        assert answered(500, X_RateLimit_Reset="60", X_RateLimit_Remaining="0", RateLimit='"day";r=0;t=600') == 600
        assert answered(429, RateLimit='"burst";r=0;t=5, "minute";r=0;t=50, "day";r=900;t=80000') == 50

    def test_is_the_last_of_several_of_which_nothing_more_is_known(self):
        assert answered(429, X_RateLimit_Reset="60", RateLimit='"day";t=600') == 600

    def test_is_the_first_of_several_that_have_some_left(self):
        assert answered(429, RateLimit='"burst";r=3;t=5, "day";r=900;t=80000') == 5


class TestWhereHeadersAre:
    def test_on_the_error_itself(self):
        assert asked(headers={"retry-after": "9"}) == 9

    def test_as_of_the_standard_library(self):
        headers = Message()
        headers["RETRY-AFTER"] = "9"

        assert asked(headers=headers) == 9

    def test_as_bytes(self):
        assert asked(headers={b"Retry-After": b"9"}) == 9

    def test_as_pairs(self):
        assert asked(headers=[("a", "b"), ("Retry-After", "9")]) == 9

    def test_as_of_googleapiclient(self):
        class Httplib2Response(dict):
            status = 403

        assert asked(resp=Httplib2Response({"x-ratelimit-reset": "9"})) == 9

    def test_as_of_botocore(self):
        metadata = {"HTTPStatusCode": 503, "HTTPHeaders": {"retry-after": "9"}}

        assert asked(response={"ResponseMetadata": metadata}) == 9

    def test_the_first_of_two_headers_counts(self):
        assert asked(headers=[("Retry-After", "9"), ("retry-after", "10")]) == 9

    def test_not_behind_hundreds_of_others(self):
        assert asked(headers=[*((f"X-{n}", "1") for n in range(1000)), ("Retry-After", "9")]) is None


class TestWrappedErrors:
    def test_what_an_error_was_raised_from_counts(self):
        with pytest.raises(RuntimeError) as wrapped:
            raise RuntimeError("the supplier is busy") from Asking(retry_after=7)

        assert asked_delay(wrapped.value, now=NOW) == 7

    def test_the_outermost_that_says_something_counts(self):
        outer = Asking(retry_after=3)
        outer.__cause__ = Asking(retry_after=7)

        assert asked_delay(outer, now=NOW) == 3

    def test_an_error_that_came_up_while_another_was_handled_asks_nothing_for_it(self):
        bug = KeyError("a bug in the handler")
        bug.__context__ = Asking(retry_after=7)

        assert asked_delay(bug, now=NOW) is None

    def test_a_circle_of_causes_ends(self):
        first, second = Asking(), Asking()
        first.__cause__, second.__cause__ = second, first

        assert asked_delay(first, now=NOW) is None

    @pytest.mark.parametrize(("depth", "found"), [(DEPTH, 7), (DEPTH + 1, None)])
    def test_a_chain_is_followed_only_so_far(self, depth, found):
        error = Asking(retry_after=7)
        for _ in range(depth - 1):
            wrapper = Asking()
            wrapper.__cause__ = error
            error = wrapper

        assert asked_delay(error, now=NOW) == found


class TestTrailingMetadata:
    @pytest.mark.parametrize(
        ("value", "delay"), [("1500", 1.5), (b"0", 0), ("0010", 0.01), ("2147483647", 2147483.647)]
    )
    def test_says_when_to_come_back(self, value, delay):
        assert asked(trailing_metadata=lambda: (("other", "1"), ("grpc-retry-pushback-ms", value))) == delay

    @pytest.mark.parametrize("value", ["-1", "", "soon", "1.5", "2147483648", "9" * 100, "\u0661"])
    def test_that_is_negative_or_no_number_means_never(self, value):
        assert asked(trailing_metadata=lambda: [("grpc-retry-pushback-ms", value)]) is Refusal.DO_NOT_RETRY

    def test_a_refusal_in_the_cause_counts(self):
        wrapper = Asking()
        wrapper.__cause__ = Asking(trailing_metadata=lambda: [("grpc-retry-pushback-ms", "-1")])

        assert asked_delay(wrapper, now=NOW) is Refusal.DO_NOT_RETRY

    @pytest.mark.parametrize(
        "details", [b"", b"\x1a\xff", b"\x07", b"\xff" * 20, b"\x1a\x02\x08\x01", "text", b"0" * 10**6]
    )
    def test_details_that_cant_be_read_ask_nothing(self, details):
        assert asked(trailing_metadata=lambda: [("grpc-status-details-bin", details)]) is None

    def test_that_only_a_coroutine_would_tell_asks_nothing(self, recwarn):
        async def trailing_metadata():
            return [("grpc-retry-pushback-ms", "5")]

        assert asked(trailing_metadata=trailing_metadata) is None
        assert not recwarn.list


class TestObjectsThatMisbehave:
    @pytest.mark.parametrize("answering", [mock.Mock, mock.MagicMock, mock.NonCallableMagicMock])
    def test_a_mock_that_answers_everything_asks_nothing(self, answering):
        class Everything(Exception):
            def __getattr__(self, name):
                return answering()

        assert asked_delay(Everything(), now=NOW) is None
        assert asked(retry_after=answering(spec=int), response=answering(), headers=answering()) is None
        assert asked(response=mock.MagicMock(spec=dict), headers=mock.MagicMock(spec=dict)) is None

    def test_a_property_that_raises_hides_no_other(self):
        class Broken(Exception):
            @property
            def headers(self):
                return {"Retry-After": "9"}

            @property
            def retry_after(self):
                raise RuntimeError

            @property
            def response(self):
                raise LookupError

            def trailing_metadata(self):
                raise ValueError

        assert asked_delay(Broken(), now=NOW) == 9

    def test_a_lying_number_or_text_asks_nothing(self):
        class Number(int):
            def __float__(self):
                raise OverflowError

            def __gt__(self, other):
                raise RuntimeError

        class Broken(float):
            def __float__(self):
                raise RuntimeError

        class Text(str):
            def __len__(self):
                raise RuntimeError

        assert asked(retry_after=Number(3)) == YEAR
        assert asked(retry_after=Number(-3)) is None
        assert asked(retry_after=Broken(3)) is None
        assert asked(retry_after=Text("3")) is None

    def test_a_time_zone_that_raises_asks_nothing(self):
        class Nowhere(tzinfo):
            def utcoffset(self, moment):
                raise RuntimeError

        assert asked(retry_after=datetime(2026, 10, 26, tzinfo=Nowhere())) is None

    def test_an_object_that_is_of_no_class_asks_nothing(self):
        class Nothing:
            @property
            def __class__(self):
                raise RuntimeError

        assert asked(trailing_metadata=Nothing, retry_after=Nothing(), headers=Nothing()) is None

    def test_names_of_headers_that_are_no_texts_are_left_out(self):
        assert asked(headers={None: "1", 7: "2", ("Retry-After",): "3", "Retry-After": "9"}) == 9

    def test_headers_without_an_end_are_left(self):
        def endless():
            while True:
                yield "X-Header", "1"

        assert asked(headers=endless()) is None

    def test_something_that_is_no_error_asks_nothing(self):
        assert asked_delay(None, now=NOW) is None
        assert asked_delay("retry_after", now=NOW) is None


@pytest.mark.parametrize("code", ["ThrottlingException", "SlowDown", "ProvisionedThroughputExceededException"])
@pytest.mark.parametrize(("attempts", "seconds"), [(0, 1), (2, 4), (4, 16), (5, 20), (10**9, 20), (None, 1), ("x", 1)])
def test_a_throttled_client_of_aws_goes_on_where_botocore_stopped(code, attempts, seconds):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"RetryAttempts": attempts}}

    assert asked(response=response) == seconds


@pytest.mark.parametrize(
    "response", [{}, {"Error": {"Code": "NoSuchKey"}}, {"Error": None}, {"Error": {"Code": []}}, []]
)
def test_another_error_of_aws_asks_nothing(response):
    assert asked(response=response) is None


def test_wait_counts_only_for_too_many_requests():
    assert asked(wait=5, status_code=429) == 5
    assert asked(wait=5, status_code=500) is None
    assert asked(wait=None, status_code=429) is None
