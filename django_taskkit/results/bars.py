"""What a progress bar shows and does, before it is HTML."""

from __future__ import annotations

import math
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.http import HttpRequest, QueryDict

from django_taskkit.results.state import Status, TaskState

OFTENEST, SELDOMEST = 0.2, 3600.0
"""Seconds between two polls, at least and at most."""

LONGEST_PAUSE: Final = 30
"""Seconds between two polls where nobody says otherwise: a task that waits may begin sooner than it has said."""

_BAR = re.compile(r"[0-9a-f]{8}\Z")
_SAID = re.compile(r"[a-z]{3,8}(-[0-4])?\Z")
_WAITING: Final = (Status.PENDING, Status.RUNNING, Status.RETRYING)


@dataclass(frozen=True, kw_only=True)
class Poll:
    """What a bar's own question carries from one answer to the next, so that the server remembers nothing."""

    bar: str
    """Tells the bars of a page apart."""
    said: str = ""
    """What a screen reader has been told last."""
    every: float | None = None
    """Seconds between two polls, if the page has said so."""
    is_renewal: bool = False
    """Whether the page shows an older value meanwhile."""
    is_last: bool = False
    """Whether the bar knows that the task is done, and asks to be sent on."""

    def query(self, said: str, *, is_last: bool = False) -> str:
        """Return the query of the next question."""
        query = QueryDict(mutable=True)
        query.update({"fragment": "1", "bar": self.bar, "said": said})
        if self.every is not None:
            query["every"] = f"{self.every:g}"
        if self.is_renewal:
            query["old"] = "1"
        if is_last:
            query["last"] = "1"
        return query.urlencode()


def new_poll(state: TaskState | None, every: float | None = None) -> Poll:
    """Return what a bar starts with.

    It is drawn by lot: a bar that comes into the page later must not have the id of one that is there.
    """
    is_renewal = state is not None and state.status is Status.STALE
    return Poll(bar=secrets.token_hex(4), every=every, is_renewal=is_renewal)


def read_poll(request: HttpRequest) -> Poll | None:
    """Return what the question of a bar carries; None if it is none of a bar."""
    bar, said = request.GET.get("bar", ""), request.GET.get("said", "")
    if not _BAR.match(bar):
        return None
    try:
        every = _within(float(request.GET["every"]))
    except (KeyError, ValueError):
        every = None
    return Poll(
        bar=bar,
        said=said if _SAID.match(said) else "",
        every=every,
        is_renewal="old" in request.GET,
        is_last="last" in request.GET,
    )


def check_every(value: Any) -> float | None:
    """Return ``value`` as seconds between two polls; None: as the state says.

    Raises:
        ValueError: it is no such number.
    """
    if value in (None, ""):
        return None
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or seconds != _within(seconds):
        raise ValueError(f"poll_every is {value!r:.80}; give seconds, {OFTENEST:g} to {SELDOMEST:g}, or a timedelta")
    return float(seconds)


def _within(seconds: float) -> float:
    return min(SELDOMEST, max(OFTENEST, seconds)) if math.isfinite(seconds) else SELDOMEST


def status_of(state: TaskState) -> Status:
    """Return the status that counts for somebody who waits: that of the run, if an older value is shown meanwhile."""
    return state.run if state.status is Status.STALE and state.run is not None else state.status


def is_done(state: TaskState) -> bool:
    """Say whether there is a value, and none on its way that is newer."""
    return state.status is Status.HIT or (state.status is Status.STALE and state.run is None)


def is_waiting(state: TaskState) -> bool:
    """Say whether it is worth asking again."""
    return status_of(state) in _WAITING


def interval(state: TaskState, poll: Poll) -> float:
    """Return seconds until the next poll."""
    return poll.every if poll.every is not None else float(min(LONGEST_PAUSE, max(1, state.retry_after or 2)))


def percent_of(state: TaskState) -> int | None:
    """Return how far it is, from 0 to 100; None if nobody knows."""
    return None if state.progress is None else state.progress.percent


def announced(state: TaskState) -> str:
    """Return a word for what a screen reader is told; another one only if there is something new to tell.

    That is another status, or another quarter of the way: more would be chatter.
    """
    status, percent = status_of(state), percent_of(state)
    return f"{status}-{percent // 25}" if status is Status.RUNNING and percent is not None else str(status)
