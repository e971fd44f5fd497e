"""A clock that stands still until a test moves it.

It is that of time-machine: what reads the time (``time.time``, ``datetime.now``, ``timezone.now``) sees it, in Celery,
in Django and in the tasks themselves, however they imported it. ``time.monotonic`` and ``time.sleep`` go on as ever.
"""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

from django_taskkit.exceptions import ConfigurationError, TaskkitError

SECOND = timedelta(seconds=1)


class FakeClock:
    """Stands at the next whole second when it is started."""

    def __init__(self) -> None:
        self._travel: Any = None
        self._traveller: Any = None

    def start(self) -> None:
        """Stop the time of this process.

        Raises:
            ConfigurationError: time-machine is not installed.
            TaskkitError: freezegun holds the time.
        """
        try:
            import time_machine
        except ImportError:
            raise ConfigurationError(
                "The fake clock of django_taskkit.testing is time-machine's, which is not installed: "
                "pip install 'django-taskkit[testing]'"
            ) from None
        # A whole second, so that delays are whole numbers; the next one, so that nothing lies in the future.
        travel = time_machine.travel(self.now().replace(microsecond=0) + SECOND, tick=False)
        try:
            self._traveller = travel.start()
        except RuntimeError as exc:
            raise TaskkitError(
                f"the fake clock can't be started: {exc} With freezegun at work no other can be: begin the block "
                f"outside of it and use tasks.advance(), or begin the block within a time_machine.travel()"
            ) from exc
        self._travel = travel

    def stop(self) -> None:
        if self._travel is not None:
            self._travel.stop()
            self._travel = self._traveller = None

    def now(self) -> datetime:
        """Return the time, in UTC."""
        return datetime.now(timezone.utc)

    def move_to(self, moment: datetime) -> None:
        """Go on to ``moment``; a moment that is past changes nothing.

        Raises:
            TaskkitError: another fake clock, begun within the block or freezegun's, hides this one.
        """
        if (by := moment - self.now()) > timedelta(0):
            self._traveller.shift(by)
            if self.now() < moment:
                raise TaskkitError(
                    "the time doesn't pass: another fake clock (freezegun, or time_machine.travel()) is at work within "
                    "this block; use tasks.advance() instead of it, or begin the block within a time_machine.travel()"
                )
