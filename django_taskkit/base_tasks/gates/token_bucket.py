"""The tokens of a retry budget: a pure state machine, with the clock handed in.

After gRPC's retry throttling (proposal A6): a failure takes a token, a success gives a part of one, and retries go only
while more than half of the tokens are there. A first attempt always goes, so the dependency's recovery is noticed; for
when there are no first attempts, a retry is let through from time to time as a probe.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

PROBE_CREDIT: Final = 1.0
"""Tokens for a retry that succeeds while the budget is spent. It stands for all that wait meanwhile: ``ratio`` alone
would let some fifty of them through one by one before the others."""


@dataclass(frozen=True)
class Terms:
    """What a bucket follows; the same in each process.

    Args:
        tokens: the most that it holds, and what it holds at first.
        ratio: tokens for a success.
        probe_every: seconds between two probes.
    """

    tokens: float
    ratio: float
    probe_every: float


@dataclass(frozen=True)
class Bucket:
    """How many tokens are there, and when the last probe was let through, in seconds since the epoch."""

    tokens: float
    probed_at: float = 0.0

    def is_full(self, terms: Terms) -> bool:
        return self.tokens >= terms.tokens

    def is_spent(self, terms: Terms) -> bool:
        """Whether retries have to wait."""
        return self.tokens <= terms.tokens / 2

    def failed(self, terms: Terms) -> Bucket:
        return replace(self, tokens=_within(self.tokens - 1, terms))

    def succeeded(self, terms: Terms, times: int = 1) -> Bucket:
        return replace(self, tokens=_within(self.tokens + terms.ratio * times, terms))

    def retry_succeeded(self, terms: Terms) -> Bucket:
        """Take note of a retry that succeeded: while the budget is spent it was a probe, and the next may follow."""
        if not self.is_spent(terms):
            return self.succeeded(terms)
        return Bucket(_within(self.tokens + PROBE_CREDIT, terms))

    def probe(self, terms: Terms, now: float) -> Bucket | None:
        """Return the bucket after a probe that may go now; None if the last one was too recently."""
        # A time far ahead of ours comes from a host whose clock is wrong, and must not stop all probes until then.
        if abs(now - self.probed_at) < terms.probe_every:
            return None
        return replace(self, probed_at=now)


def _within(tokens: float, terms: Terms) -> float:
    return min(terms.tokens, max(0.0, tokens))


def load(value: bytes | None, terms: Terms) -> Bucket:
    """Return the bucket that was dumped; a full one for None, and for what can't be read."""
    try:
        tokens, probed_at = map(float, (value or b"").split())
    except ValueError:
        return Bucket(terms.tokens)
    if not (math.isfinite(tokens) and math.isfinite(probed_at)):
        return Bucket(terms.tokens)
    return Bucket(_within(tokens, terms), probed_at)


def dump(bucket: Bucket, terms: Terms) -> bytes | None:
    """Return what :func:`load` reads; None for a full bucket, which needs no room."""
    return None if bucket.is_full(terms) else f"{bucket.tokens:.4f} {bucket.probed_at:.3f}".encode()
