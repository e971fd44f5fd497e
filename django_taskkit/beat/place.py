"""Where beats meet: what is kept there, and what it has to be able to do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from django_taskkit.exceptions import TaskkitError


class PlaceError(TaskkitError):
    """The database or the store in which beats meet can't be read or written."""


@dataclass(frozen=True, kw_only=True)
class Sign:
    """Who sends what is due. Times are seconds since 1970, by the clock of the holder."""

    holder: str
    host: str
    pid: int
    process: str
    scheduler: str
    started_at: float
    seen_at: float
    next_due_at: float | None
    is_released: bool
    version: int

    @property
    def who(self) -> str:
        """For people."""
        return f"{self.host}:{self.pid}"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The last time that an entry was sent, or was about to be."""

    holder: str
    began_at: float
    before: float | None
    """When it had run before."""
    is_sent: bool
    """Whether sending came to an end."""


class Place(Protocol):
    """Methods raise :class:`PlaceError`, and nothing else, if it is out of reach, after some seconds at most."""

    def read(self) -> Sign | None:
        """Return what was written last; None if no beat was ever seen."""
        ...

    def replace(self, seen: Sign | None, new: Sign) -> bool:
        """Write ``new`` in the place of what was ``seen``; False if that isn't there any more."""
        ...

    def runs(self, entries: Iterable[str]) -> dict[str, Run]:
        """Return the last run of each entry that has one."""
        ...

    def begin(self, entry: str, run: Run) -> bool:
        """Note that ``run`` is about to be sent; False if its holder isn't the one who sends any more."""
        ...

    def end(self, entry: str, run: Run) -> None:
        """Note that sending ``run`` came to an end."""
        ...
