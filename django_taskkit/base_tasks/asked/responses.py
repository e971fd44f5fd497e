"""HTTP responses, as client libraries attach them to their errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django_taskkit.base_tasks.asked import rate_limits
from django_taskkit.base_tasks.asked.reading import attribute, item, items_of, number_of
from django_taskkit.base_tasks.asked.times import date_of, milliseconds_from, seconds_from

MOST_SKEW = 86400.0
"""Seconds between our clock and the ``Date`` of a response; one that is further away is not a clock's."""

IN_MILLISECONDS = ("retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after")
"""Kin of ``Retry-After`` that count milliseconds: of OpenAI and Azure, of Azure Cosmos DB ("Common REST response
headers"), and of AWS (botocore/retries/standard.py)."""


@dataclass(frozen=True)
class Answer:
    """What is known of a response."""

    status: float | None
    headers: dict[str, Any] = field(default_factory=dict)
    """By name, in lower case; the first value of each."""

    def asks(self, now: float) -> float | None:
        """Return the seconds that this response asks to wait, None if it asks nothing.

        ``Retry-After`` (RFC 9110, section 10.2.3) counts with whatever status, and comes before the reset of a rate
        limit, as in GitHub's "Best practices for using the REST API"; what is written in milliseconds is the same
        wish, only more exact. Dates are counted from the response's own ``Date``: the server's clock may be wrong,
        and ours too.
        """
        now = self._clock(now)
        for name in IN_MILLISECONDS:
            seconds = milliseconds_from(self.headers.get(name))
            if seconds is not None:
                return seconds
        seconds = seconds_from(self.headers.get("retry-after"), now)
        return rate_limits.reset_of(self.status, self.headers, now) if seconds is None else seconds

    def _clock(self, now: float) -> float:
        date = date_of(self.headers.get("date"))
        return now if date is None or abs(date - now) > MOST_SKEW else date


def answers_of(error: BaseException) -> Iterator[Answer]:
    """Yield the responses that ``error`` carries, the likeliest place first.

    - ``error.response.headers``: requests, httpx, azure-core, slack_sdk, and others;
    - ``error.response["ResponseMetadata"]["HTTPHeaders"]``: botocore's ``ClientError``, whose parser makes it so;
    - ``error.headers``: urllib.error.HTTPError, aiohttp.ClientResponseError, kubernetes, PyGithub; also an error that
      is a response itself, as in urllib3;
    - ``error.resp``: googleapiclient, whose response is the mapping of its headers.
    """
    response = attribute(error, "response")
    metadata = item(response, "ResponseMetadata")
    if metadata is not None:
        yield _answer(item(metadata, "HTTPStatusCode"), item(metadata, "HTTPHeaders"))
    for holder in (response, error):
        headers = None if holder is None else attribute(holder, "headers")
        if headers is not None:
            yield _answer(_status(holder, error), headers)
    headers = attribute(error, "resp")
    if headers is not None:
        yield _answer(attribute(headers, "status"), headers)


def _answer(status: Any, headers: Any) -> Answer:
    found: dict[str, Any] = {}
    for name, value in items_of(headers):
        found.setdefault(name, value)
    return Answer(number_of(status), found)


def _status(*holders: Any) -> Any:
    for holder in holders:
        for name in ("status_code", "status", "code"):
            status = attribute(holder, name)
            if number_of(status) is not None:
                return status
    return None
