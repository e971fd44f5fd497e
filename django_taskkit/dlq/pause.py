"""Don't try for a while what has just failed, don't say every second what lasts for hours, and let others in."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

logger = logging.getLogger("django_taskkit")


class Pause:
    """After a failure, says for a few seconds that another try would only wait for the same."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = float("-inf")

    def begin(self) -> None:
        self._until = self._clock() + self._seconds

    def end(self) -> None:
        self._until = float("-inf")

    @property
    def on(self) -> bool:
        return self._clock() < self._until


class Gaps:
    """Leaves gaps between many transactions in a row, in which others get to write.

    SQLite has one writer at a time and wakes nobody: whoever waits looks every 0.1 s, and can miss each short moment
    between two transactions until its timeout is over. Other databases lock rows, and need no gaps.
    """

    EVERY = 1.0
    """Seconds of writing after which there is a gap."""
    LENGTH = 0.25
    """Seconds: the longest that SQLite sleeps between two looks, and as long again for a busy machine."""

    def __init__(
        self,
        vendor: str,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._wanted = vendor == "sqlite"
        self._clock = clock
        self._sleep = sleep
        self._since = clock()

    def leave(self) -> None:
        """Wait for a moment if the last gap was long ago; call it between two transactions."""
        if self._wanted and self._clock() - self._since >= self.EVERY:
            self._sleep(self.LENGTH)
            self._since = self._clock()


class Troubles:
    """Logs each lasting trouble when it begins and when it is over."""

    def __init__(self) -> None:
        self._lasting: set[str] = set()

    def begins(self, what: str, message: str, *args: object) -> None:
        if what not in self._lasting:
            logger.warning(message, *args)
        self._lasting.add(what)

    def ends(self, what: str, message: str, *args: object) -> None:
        if what in self._lasting:
            logger.info(message, *args)
        self._lasting.discard(what)
