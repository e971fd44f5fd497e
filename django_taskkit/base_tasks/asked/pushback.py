"""What a gRPC server says in the trailing metadata of a call that failed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django_taskkit.base_tasks.asked.reading import called, pairs_of, text_of
from django_taskkit.base_tasks.asked.times import YEAR

PUSHBACK = "grpc-retry-pushback-ms"
DETAILS = "grpc-status-details-bin"

LARGEST = 2**31 - 1
"""A pushback is a signed integer of 32 bits."""

LONGEST_DETAILS = 64 * 1024
"""Bytes of details that are worth reading; gRPC's own limit for all metadata is 8 KiB by default."""

RETRY_INFO = b"google.rpc.RetryInfo"


def pushed_back(error: BaseException) -> float | None:
    """Return the seconds that the server asks to wait; negative: it asks not to come back; None: it asks nothing.

    ``grpc-retry-pushback-ms`` is defined by gRPC's proposal A6, "Pushback": a number of milliseconds, and if it is
    negative or can't be read, the client must not retry. Next comes ``google.rpc.RetryInfo`` (google/rpc/
    error_details.proto), "clients should wait at least this long". Errors of ``grpc`` and ``grpc.aio`` have the
    method ``trailing_metadata()``; those of google-api-core are raised from them.
    """
    details: Any = None
    # Iterated as it is: the metadata of grpc.aio has an items() that fails.
    for name, value in pairs_of(called(error, "trailing_metadata")):
        if name == PUSHBACK:
            text = text_of(value)
            if text is not None:
                return _pushback(text)
        elif name == DETAILS and type(value) is bytes and len(value) <= LONGEST_DETAILS:
            details = value
    return None if details is None else _retry_info(details)


def _pushback(text: str) -> float:
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) > LARGEST:
        return -1.0
    return int(text) / 1000


def _retry_info(details: bytes) -> float | None:
    """Return the delay of a ``RetryInfo`` among ``details``, a serialized ``google.rpc.Status``.

    Status: repeated Any details = 3. Any: string type_url = 1, bytes value = 2. RetryInfo: Duration retry_delay = 1.
    Duration: int64 seconds = 1, int32 nanos = 2.
    """
    try:
        for number, detail in _fields(details):
            if number == 3 and isinstance(detail, bytes):
                of = dict(_fields(detail))
                if of.get(1, b"").rpartition(b"/")[2] == RETRY_INFO:
                    delay = dict(_fields(dict(_fields(of.get(2, b""))).get(1, b"")))
                    seconds = delay.get(1, 0) + delay.get(2, 0) / 1e9
                    # A negative one is written as a number of 64 bits.
                    return 0.0 if seconds >= 2**63 else min(float(seconds), YEAR)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return None


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a message in the wire format of Protocol Buffers.

    Raises:
        ValueError: it isn't one.
        IndexError: it is cut off.
    """
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == 0:
            value: Any
            value, at = _varint(message, at)
        elif kind in (1, 2, 5):
            length, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value = message[at : at + length]
            at += length
            if len(value) < length:
                raise IndexError("the message is cut off")
        else:
            raise ValueError(f"{kind} is no wire type")
        yield key >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number is longer than 64 bits")
