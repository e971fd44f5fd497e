"""The forms in which a time to wait is written."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime

from django_taskkit.base_tasks.asked.reading import number_of, text_of

YEAR = 366 * 86400.0
"""Seconds; nothing asks for more, so that what is done with a delay can't overflow."""

EPOCH_SECONDS = 10.0**9
"""A number from here on is a time since the epoch (it was 2001), not a time to wait (of 31 years)."""

EPOCH_MILLISECONDS = 10.0**11
"""A number from here on is one in milliseconds (it was 1973; in seconds it is the year 5138)."""

_NUMBER = re.compile(r"[0-9]{1,400}(?:\.[0-9]{1,400})?")


def seconds_from(value: object, now: float) -> float | None:
    """Return the seconds between ``now`` and what ``value`` says: 0 for a time that is past, None if it can't be read.

    A number is seconds, or from 10^9 on a time since the epoch. A datetime without a time zone is local time, as in
    Python's own ``datetime.timestamp()``. A text holds a number, an HTTP date, or ISO 8601.
    """
    kind = type(value)
    try:
        if issubclass(kind, timedelta):
            number = number_of(timedelta.total_seconds(value))  # type: ignore[arg-type]
            return None if number is None else min(number, YEAR)
        if issubclass(kind, datetime):
            return _until(datetime.timestamp(value), now)  # type: ignore[arg-type]
        number = _number(value)
        if number is not None:
            return _until_number(number, now)
        moment = date_of(value)
        return None if moment is None else _until(moment, now)
    except Exception:  # a datetime, or its time zone, may do as it likes
        return None


def milliseconds_from(value: object) -> float | None:
    """Return the seconds that a number of milliseconds is, also as a text."""
    number = _number(value)
    return None if number is None else min(number / 1000, YEAR)


def date_of(value: object) -> float | None:
    """Return the seconds since the epoch of an HTTP date, or of a time in ISO 8601.

    It takes all three forms that RFC 9110, section 5.6.7, asks a recipient to accept; without a time zone they are
    in GMT.
    """
    text = text_of(value)
    if not text:
        return None
    moment = _read(text, parsedate_to_datetime)
    return _read(re.sub("[zZ]$", "+00:00", text), datetime.fromisoformat) if moment is None else moment


def _read(text: str, read: Callable[[str], datetime]) -> float | None:
    try:
        moment = read(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    except Exception:  # which one depends on Python's version
        return None


def _number(value: object) -> float | None:
    text = text_of(value)
    if text is None:
        return number_of(value)
    return float(text) if _NUMBER.fullmatch(text) else None


def _until_number(number: float, now: float) -> float:
    if number >= EPOCH_MILLISECONDS:
        return _until(number / 1000, now)
    return _until(number, now) if number >= EPOCH_SECONDS else min(number, YEAR)


def _until(moment: float, now: float) -> float:
    return max(0.0, min(moment - now, YEAR))
