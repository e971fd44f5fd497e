"""What an error asks for: how long to wait before coming back, or not to come back.

A server that is overloaded often says when it will be there again. :func:`asked_delay` finds that in the error which
a client library made of the answer. It imports none of these libraries: it looks at the attributes that they document.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from django_taskkit.base_tasks.asked.aws import throttled_for
from django_taskkit.base_tasks.asked.pushback import pushed_back
from django_taskkit.base_tasks.asked.reading import attribute, number_of
from django_taskkit.base_tasks.asked.responses import answers_of
from django_taskkit.base_tasks.asked.times import seconds_from

DEPTH = 5
"""How many errors of a chain are looked at: the one that was raised, and what it was raised ``from``."""


class Refusal(enum.Enum):
    """The error says not to come back."""

    DO_NOT_RETRY = "do not retry"


def asked_delay(exc: BaseException, *, now: float) -> float | Refusal | None:
    """Return the seconds that ``exc`` asks to wait, :class:`Refusal` if it says not to come back, None if neither.

    The first of these that can be read decides, in ``exc`` itself and then in what it was raised ``from``, which is
    how errors are wrapped; an error that merely came up while another was handled asks nothing for it:

    1. gRPC's trailing metadata: ``grpc-retry-pushback-ms``, then ``google.rpc.RetryInfo`` (:mod:`.pushback`);
    2. an attribute ``retry_after``: a number of seconds, a timedelta, a datetime, or any of these as a text;
    3. the headers of an HTTP response: ``Retry-After`` and its kin, then the reset of a rate limit (:mod:`.responses`);
    4. ``wait`` of an error with the status 429: that is Django REST framework's ``Throttled``;
    5. an AWS error code that means throttling (:mod:`.aws`).

    What can't be read asks nothing. It never raises, imports nothing, and looks at a bounded number of things.

    Args:
        now: seconds since the epoch.

    Returns:
        Seconds, 0 or more, at most a year. They are the least time to wait, not a time by which all is well.
    """
    for error in _chain(exc):
        try:
            asked = _asked_by(error, now)
        except Exception:  # the last net: an object that misbehaves where nobody thought of it
            asked = None
        if asked is not None:
            return asked
    return None


def _chain(exc: BaseException) -> Iterator[BaseException]:
    error: BaseException | None = exc
    for _ in range(DEPTH):  # which also ends a circle
        if error is None:
            return
        yield error
        error = attribute(error, "__cause__")


def _asked_by(error: BaseException, now: float) -> float | Refusal | None:
    pushback = pushed_back(error)
    if pushback is not None:
        return Refusal.DO_NOT_RETRY if pushback < 0 else pushback
    asked = seconds_from(attribute(error, "retry_after"), now)
    if asked is not None:
        return asked
    for answer in answers_of(error):
        asked = answer.asks(now)
        if asked is not None:
            return asked
    if number_of(attribute(error, "status_code")) == 429:
        asked = seconds_from(attribute(error, "wait"), now)
    return throttled_for(error) if asked is None else asked


__all__ = ["Refusal", "asked_delay"]
