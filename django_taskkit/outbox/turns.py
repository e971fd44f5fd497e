"""What need not be done in every round has its turn once in a while."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta


class Turn:
    """Comes at first, and then when ``pause`` has passed since it came last; also when the clock was set back."""

    def __init__(self, pause: timedelta, clock: Callable[[], datetime]) -> None:
        self._pause = pause
        self._clock = clock
        self._last: datetime | None = None

    def has_come(self) -> bool:
        """Say whether it has; if so, the pause begins again."""
        now = self._clock()
        if self._last is not None and timedelta(0) <= now - self._last < self._pause:
            return False
        self._last = now
        return True

    def at_once(self) -> None:
        """Let it come the next time that somebody asks."""
        self._last = None
