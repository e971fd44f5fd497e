"""When a rate limit ends, from the headers of a response.

There is no standard yet. ``X-RateLimit-*`` is custom, and each service has its own idea of ``Reset``: a time since the
epoch (GitHub, Okta, X), or seconds to wait, as in the drafts of the IETF's "RateLimit header fields for HTTP"
(draft-ietf-httpapi-ratelimit-headers): three fields up to draft 06, one ``RateLimit: limit=, remaining=, reset=`` in
draft 07, one list of ``"policy";r=0;t=30`` since draft 08.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from django_taskkit.base_tasks.asked.reading import text_of
from django_taskkit.base_tasks.asked.times import seconds_from

REFUSING = (403.0, 429.0, 503.0)
"""The statuses with which servers turn away who comes too often; GitHub sends the first."""

PREFIXES = ("x-ratelimit", "x-rate-limit", "ratelimit")


def reset_of(status: float | None, headers: Mapping[str, Any], now: float) -> float | None:
    """Return the seconds until the limit is over that turned this request away, None if none did.

    Services send these headers with every response. They mean something to a request that failed if nothing remains
    of a limit, or if the status says that it was turned away. A status of 403 or 503 with some left has another cause;
    after a 429 with some left it was a limit that isn't named, and the first to be reset is the best guess there is.
    """
    limits = list(_limits(headers, now))
    used_up = [seconds for remaining, seconds in limits if remaining == 0]
    unknown = [seconds for remaining, seconds in limits if remaining is None and status in REFUSING]
    if used_up or unknown:
        return max(used_up or unknown)
    return min((seconds for _, seconds in limits), default=None) if status == 429 else None


def _limits(headers: Mapping[str, Any], now: float) -> Iterator[tuple[float | None, float]]:
    """Yield what remains of each limit, if that is known, and the seconds until it is reset."""
    for prefix in PREFIXES:
        remaining = seconds_from(headers.get(f"{prefix}-remaining"), now)
        # Discord has both; its second counts in fractions, from now on.
        reset = headers.get(f"{prefix}-reset-after", headers.get(f"{prefix}-reset"))
        seconds = seconds_from(reset, now)
        if seconds is not None:
            yield remaining, seconds
    yield from _combined(headers.get("ratelimit"), now)


def _combined(value: Any, now: float) -> Iterator[tuple[float | None, float]]:
    text = text_of(value)
    if text is None:
        return
    entries = [
        {name.strip(): number.strip() for name, _, number in (part.partition("=") for part in entry.split(";"))}
        for entry in re.sub('"[^"]*"', "", text).split(",")
    ]
    draft_07 = {name: number for entry in entries if len(entry) == 1 for name, number in entry.items()}
    for entry, left, reset in [*((entry, "r", "t") for entry in entries), (draft_07, "remaining", "reset")]:
        seconds = seconds_from(entry.get(reset), now)
        if seconds is not None:
            yield seconds_from(entry.get(left), now), seconds
