"""What was sent last, whoever sent it: so that a schedule that is behind sends nothing again.

A schedule file knows only its own machine, and even django-celery-beat writes down what it sent only every three
minutes. What is noted here is noted before each message and after it. What a beat died over in between may have been
sent or not, and is sent again: rather twice than never.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from celery.utils.time import maybe_make_aware

from django_taskkit.beat.due import due_times
from django_taskkit.beat.place import Place, PlaceError, Run

logger = logging.getLogger("django_taskkit")

LATE = timedelta(seconds=60)
"""By how much a beat that is there may be late."""


class LeaseLost(BaseException):
    """Leaves a scheduler in the middle of its work, because another beat has the lease.

    Not an Exception: what sends an entry catches and logs those.
    """


class Fence(Protocol):
    """What the ledger has to know of the lease."""

    def is_sure(self) -> bool: ...
    def renew(self) -> bool:
        """Ask for the lease now; False if it is another's, or nobody can say."""
        ...


class Ledger:
    """The last runs of the entries of one beat.

    Args:
        place: where they are kept.
        holder: this beat.
    """

    def __init__(self, place: Place, holder: str, wall: Callable[[], float] = time.time) -> None:
        self._place = place
        self._holder = holder
        self._wall = wall
        self._runs: dict[str, Run] = {}
        self._unwritten: dict[str, Run] = {}

    def load(self, entries: Iterable[str]) -> None:
        """Read what is known of ``entries``, and forget what was known before, but for what couldn't be written.

        Raises:
            PlaceError: it can't be read.
        """
        self._runs = {**self._place.runs(entries), **self._unwritten}

    def correct(self, entry: Any) -> None:
        """Tell an entry of the schedule when it really ran last."""
        run = self._runs.get(entry.name)
        if run is None:
            return
        known = seconds(entry.last_run_at)
        if run.is_sent or run.holder == self._holder:
            began_at = min(run.began_at, self._wall())  # a clock that is ahead must not silence an entry
            if known is None or known < began_at:
                entry.last_run_at = _like(entry.last_run_at, began_at)
            _end_one_off(entry, run)
            return
        del self._runs[entry.name]  # once
        logger.warning("the beat before died while it sent %s: it is sent again", entry.name)
        if run.before is not None and (known is None or known > run.before):
            entry.last_run_at = _like(entry.last_run_at, run.before)

    def restore(self, entry: Any, seen_at: float) -> None:
        """Tell an entry of a new schedule file when it ran last; Celery takes it for one that ran this very moment.

        Else what runs once a day would never run where beat is started anew, on an empty disk, each day. An entry that
        did not run while a beat was there was not in the schedule then, and begins now.

        Args:
            seen_at: when a beat was seen at work last, in seconds since 1970.
        """
        run, known = self._runs.get(entry.name), seconds(entry.last_run_at)
        if run is None or entry.total_run_count or known is None or known <= run.began_at:
            return
        began = datetime.fromtimestamp(run.began_at, tz=timezone.utc)
        seen = datetime.fromtimestamp(seen_at, tz=timezone.utc) - LATE
        if seen <= began or next(due_times(entry.schedule, began, began, seen), None) is None:
            entry.last_run_at = _like(entry.last_run_at, run.began_at)

    def begin(self, entry: Any, lease: Fence) -> Run:
        """Note that ``entry`` is about to be sent.

        Raises:
            LeaseLost: it must not be, for another beat is at work, or may be.
        """
        if not lease.is_sure() and not lease.renew():
            raise LeaseLost
        run = Run(holder=self._holder, began_at=self._wall(), before=seconds(entry.last_run_at), is_sent=False)
        try:
            if not self._place.begin(entry.name, run):
                raise LeaseLost
        except PlaceError:
            if not lease.is_sure():
                raise LeaseLost from None
            self._unwritten[entry.name] = run
        else:
            self._unwritten.pop(entry.name, None)
        self._runs[entry.name] = run
        return run

    def end(self, entry: Any, run: Run) -> None:
        """Note that it was sent; or that it was tried and failed, of which Celery makes no more either."""
        self._runs[entry.name] = replace(run, is_sent=True)
        if entry.name in self._unwritten:
            self._unwritten[entry.name] = self._runs[entry.name]
            return
        try:
            self._place.end(entry.name, run)
        except PlaceError:
            self._unwritten[entry.name] = self._runs[entry.name]

    def flush(self) -> None:
        """Write what could not be written at the time."""
        try:
            for entry, run in list(self._unwritten.items()):
                if self._place.begin(entry, run) and run.is_sent:
                    self._place.end(entry, run)
                del self._unwritten[entry]
        except PlaceError:
            logger.debug("what beat sent can't be noted yet", exc_info=True)


def seconds(moment: datetime | None) -> float | None:
    """Return seconds since 1970; a time without a zone is of UTC, as Celery takes it."""
    return None if moment is None else maybe_make_aware(moment).timestamp()


def _like(moment: datetime | None, since_1970: float) -> datetime:
    """Return a time of the kind that ``moment`` is: with a zone, or in UTC without one."""
    if moment is None or moment.tzinfo is not None:
        return datetime.fromtimestamp(since_1970, tz=moment.tzinfo if moment is not None else timezone.utc)
    return datetime.fromtimestamp(since_1970, tz=timezone.utc).replace(tzinfo=None)


def _end_one_off(entry: Any, run: Run) -> None:
    """Have django-celery-beat know that an entry which runs but once did so.

    It counts the run in memory, so a beat that was killed forgets it. Whoever wants it to run once more enables it
    again, and has changed it since.
    """
    model = getattr(entry, "model", None)
    if model is None or not getattr(model, "one_off", False) or model.total_run_count:
        return
    changed = model.date_changed
    if changed is not None and changed.timestamp() < run.began_at:
        model.total_run_count = 1
