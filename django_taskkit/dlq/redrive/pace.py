"""Messages per second."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

BURST = 2.0
"""Seconds whose messages may be sent at once by a runner that comes by less often than every moment."""

_ROUNDING = 1e-6
"""Part of a message; adding tenths up gives 0.9999."""


class Pace:
    """Says how many messages may be sent now, so that on average there are no more than ``rate`` per second."""

    def __init__(self, rate: float | None, clock: Callable[[], datetime]) -> None:
        self.rate = rate
        self._clock = clock
        self._at = clock()
        self._saved = 1.0  # the first message need not wait

    def allowance(self, limit: int) -> int:
        """Return how many may be sent now, at most ``limit``."""
        if self.rate is None:
            return limit
        now = self._clock()
        # A clock that was set back, or forward, changes nothing but this moment.
        elapsed = min(max(0.0, (now - self._at).total_seconds()), BURST)
        self._at = now
        self._saved = min(self._saved + elapsed * self.rate, max(1.0, BURST * self.rate))
        return min(limit, int(self._saved + _ROUNDING))

    def spend(self, count: int) -> None:
        """Note that ``count`` messages were sent."""
        self._saved -= count

    def wait(self) -> float:
        """Return the seconds until the next message may be sent."""
        if self.rate is None or self._saved >= 1:
            return 0.0
        return (1 - self._saved) / self.rate
