"""The right to send what is due, for one beat at a time.

No two clocks are compared. The holder changes the sign every third of a lease, and counts on it for less than a lease
from the moment *before* it asked. Another takes over once it has seen the sign unchanged for a whole lease from the
moment *after* it looked: only then is the holder's time surely up. That holds as long as the clocks of two machines run
at the same speed, to within `SURE`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from django_taskkit.beat.place import Place, PlaceError, Sign
from django_taskkit.process_identity import is_gone

logger = logging.getLogger("django_taskkit")

LEASE = 30.0
"""Seconds without a sign of life after which another beat takes over."""

SURE = 0.9
"""The part of a lease for which its holder counts on it."""

POLL = 2.0
"""Seconds between two looks of a beat that stands by."""


class Standing(Enum):
    HELD = "at work"
    STANDBY = "standing by"
    UNSURE = "unsure"
    """What beats meet in is out of reach for so long that another may be at work."""


def boot_clock() -> float:
    """Seconds since the machine was started, those that it slept included."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Lease:
    """The right of the beat that ``me`` describes.

    Args:
        place: where beats meet.
        me: this beat; its times and version don't matter.
        clock: seconds from any moment on; must go on while the process is stopped or the machine sleeps.
        wall: seconds since 1970.
    """

    def __init__(
        self,
        place: Place,
        me: Sign,
        clock: Callable[[], float] = boot_clock,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.me = me
        self.before: Sign | None = None
        """The sign that this beat found when it took the lease."""
        self.other: Sign | None = None
        """Who has it, as seen last."""
        self._place = place
        self._clock = clock
        self._wall = wall
        self._held = False
        self._sure_until = self._renew_at = float("-inf")
        self._unchanged_since = clock()
        self._is_away = False

    def hold(self, next_due_at: float | None = None) -> Standing:
        """Take the lease, or keep it; asks the place only when it is time to.

        Args:
            next_due_at: when the next run is due, for others to read.
        """
        now = self._clock()
        if self._held and now < self._renew_at:
            return Standing.HELD
        try:
            standing = self._look(now, next_due_at)
        except PlaceError as exc:
            return self._without_place(exc)
        if self._is_away:
            self._is_away = False
            logger.warning("beat's lease can be seen to again")
        return standing

    def is_sure(self) -> bool:
        """Say whether no other beat can be at work, whatever the place would say."""
        return self._held and self._clock() < self._sure_until

    def pause(self) -> float:
        """Return after how many seconds the holder has to call :meth:`hold` again."""
        return max(0.0, self._renew_at - self._clock())

    def lose(self) -> None:
        """Take note that another has it."""
        self._held = False
        self.other = None

    def release(self) -> None:
        """Give it back, so that another takes over at once; if that fails it ends by itself."""
        if not self._held:
            return
        self._held = False
        try:
            sign = self._place.read()
            if sign is not None and sign.holder == self.me.holder:
                given = replace(sign, seen_at=self._wall(), is_released=True, version=sign.version + 1)
                self._place.replace(sign, given)
        except PlaceError as exc:
            logger.warning("beat could not give its lease back; it ends in %.0f seconds: %s", LEASE, exc)

    def _look(self, now: float, next_due_at: float | None) -> Standing:
        sign = self._place.read()
        seen = self._clock()
        ours = sign is not None and sign.holder == self.me.holder and not sign.is_released
        forgotten = sign is None and self._held  # a cache was emptied
        if self._held and not (ours or forgotten):
            self.lose()
            return Standing.STANDBY
        if sign is not None and not ours and not sign.is_released and not self._is_over(sign, seen):
            return Standing.STANDBY
        mine = replace(
            self.me, seen_at=self._wall(), next_due_at=next_due_at, version=sign.version + 1 if sign is not None else 1
        )
        if not self._place.replace(sign, mine):
            self.lose()
            return Standing.STANDBY
        if not self._held:
            self._held = True
            self.before = sign
        self.other = None
        self._sure_until, self._renew_at = now + LEASE * SURE, now + LEASE / 3
        return Standing.HELD

    def _is_over(self, sign: Sign, now: float) -> bool:
        """Say whether the lease of another has ended."""
        known = self.other
        if known is None or (known.holder, known.version) != (sign.holder, sign.version):
            self._unchanged_since = now
        self.other = sign
        return now - self._unchanged_since >= LEASE or is_gone(sign.process)

    def _without_place(self, exc: PlaceError) -> Standing:
        now = self._clock()
        if not self._is_away:
            self._is_away = True
            logger.error("beat can't see to its lease, and sends for %.0f more seconds: %s", self._remaining(now), exc)
        if self._held and now < self._sure_until:
            self._renew_at = now + POLL
            return Standing.HELD
        return Standing.UNSURE

    def _remaining(self, now: float) -> float:
        return max(0.0, self._sure_until - now) if self._held else 0.0


class NoLease:
    """For ``BEAT_LOCK = "off"``: whoever asks is the one."""

    before: Sign | None = None
    other: Sign | None = None

    def hold(self, next_due_at: float | None = None) -> Standing:
        return Standing.HELD

    def is_sure(self) -> bool:
        return True

    def pause(self) -> float:
        return LEASE / 3  # a sign of life, for whoever looks at this process

    def lose(self) -> None:
        """Nobody else can have it."""

    def release(self) -> None:
        """Nobody waits for it."""
