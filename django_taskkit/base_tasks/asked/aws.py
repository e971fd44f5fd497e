"""AWS throttles without saying for how long; botocore knows how long to wait all the same."""

from __future__ import annotations

import math

from django_taskkit.base_tasks.asked.reading import attribute, item, number_of

THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
"""The error codes that botocore's standard retry mode takes for throttling (botocore/retries/standard.py)."""

BASE = 1.0
"""Seconds before the first retry of a throttled request in that mode."""

CAP = 20.0
"""The longest wait in that mode, in seconds."""


def throttled_for(error: BaseException) -> float | None:
    """Return the seconds for which a throttled client of AWS has to stay away at least; None if it wasn't throttled.

    botocore has waited and tried again before it raises: ``min(20, 2 ** i)`` seconds before its retry ``i``, counted
    from 0, times a random number up to 1. A task goes on where botocore stopped, without that number: the longest that
    botocore itself would have waited next. How often it has tried is in the error, as ``RetryAttempts``.
    """
    response = attribute(error, "response")
    code = item(response, "Error", "Code")
    if type(code) is not str or code not in THROTTLED:
        return None
    attempts = number_of(item(response, "ResponseMetadata", "RetryAttempts")) or 0.0
    return min(CAP, BASE * math.pow(2.0, min(attempts, 10.0)))
