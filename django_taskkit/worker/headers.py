"""Which headers of a message would end the worker that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

NO_LIMITS = [None, None]
"""What nearly every message says; looking no closer at these saves each task a few microseconds."""


def wrong_header(headers: Mapping[str, Any]) -> str:
    """Return the first header that would raise somewhere in the worker, and so end it; empty if there is none."""
    limits, stamped = headers.get("timelimit"), headers.get("stamped_headers")
    if not isinstance(headers["id"], (str, UUID)):  # kombu's JSON brings a UUID back as one
        return "id"
    if not isinstance(headers.get("shadow"), (str, type(None))):
        return "shadow"
    if (
        limits
        and limits != NO_LIMITS
        and not (
            isinstance(limits, (list, tuple))
            and len(limits) == 2
            and all(isinstance(limit, (int, float, type(None))) for limit in limits)
        )
    ):
        return "timelimit"
    if stamped and not isinstance(stamped, (list, tuple)):
        return "stamped_headers"
    if stamped and not isinstance(headers.get("stamps") or {}, Mapping):
        return "stamps"
    return ""
