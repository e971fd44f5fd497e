"""Stands where Celery's beat has its scheduler, and lets the real one work only while it holds the lease.

Celery's own loop goes on, with its sleeps, its signals and its end, for every class of scheduler and for ``worker -B``.
The real scheduler is made once the lease is held: two that open one schedule file break it. It is thrown away when the
lease is lost, without writing down what it knows, for others know better by then.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from django.db import Error as DatabaseError
from django.db import InterfaceError, OperationalError, connections

from django_taskkit.beat import missed
from django_taskkit.beat.interruptions import put_off
from django_taskkit.beat.lease import POLL, Lease, NoLease, Standing
from django_taskkit.beat.ledger import LeaseLost, Ledger
from django_taskkit.beat.place import PlaceError
from django_taskkit.dlq.durable import forget_connection

logger = logging.getLogger("django_taskkit")


class SoleScheduler:
    """The scheduler of the one beat that sends.

    Args:
        build: makes the real scheduler.
        idle: makes one that has set nothing up, for who asks while there is no real one.
        lease: the right to send.
        ledger: what was sent last; None if nobody else sends.
        on_turn: told of each turn of beat's loop how things stand, and when the next run is due.
        on_end: told when beat ends in good order.
    """

    def __init__(
        self,
        build: Callable[[], Any],
        idle: Callable[[], Any],
        lease: Lease | NoLease,
        ledger: Ledger | None,
        on_turn: Callable[[Standing, float | None], object] = lambda standing, next_due_at: None,
        on_end: Callable[[], object] = lambda: None,
    ) -> None:
        self._build = build
        self._make_idle = idle
        self._lease = lease
        self._ledger = ledger
        self._on_turn = on_turn
        self._on_end = on_end
        self._real: Any = None
        self._idle: Any = None
        self._told: Standing | None = None
        self._unsure_since: float | None = None
        self._works = False
        self._is_closed = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._at_hand(), name)

    @property
    def max_interval(self) -> Any:
        return self._at_hand().max_interval

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        """Send what is due, if that is ours to do; return the seconds until the next call."""
        self._works = True
        try:
            standing = self._lease.hold(self.next_due_at())
            self._tell(standing)
            if standing is not Standing.HELD:
                if standing is Standing.STANDBY:
                    self._abandon()
                return POLL
            return self._work(*args, **kwargs)
        except LeaseLost:
            logger.warning("this beat was silent for too long and lost its lease; it sends nothing")
            self._lease.lose()
            self._abandon()
            return 0
        finally:
            self._works = False
            if not self._is_closed:
                self._on_turn(self._told or Standing.UNSURE, self.next_due_at())

    def _work(self, *args: Any, **kwargs: Any) -> Any:
        try:
            if self._real is None:
                self._start()
            elif self._ledger is not None:
                self._ledger.flush()
            interval = self._real.tick(*args, **kwargs)
        except PlaceError as exc:
            logger.error("beat can't find out what was sent last, and waits: %s", exc)
            return POLL
        except DatabaseError as exc:
            if self._real is None and not isinstance(exc, (OperationalError, InterfaceError)):
                raise  # a table that isn't there, say, won't be there in two seconds
            self._forget_broken_connections()
            logger.error("the schedule can't be read, and is tried again: %s: %s", type(exc).__name__, exc)
            return POLL
        return min(interval, self._lease.pause()) if interval and interval > 0 else interval

    @staticmethod
    def _forget_broken_connections() -> None:
        with suppress(Exception):  # it is an attempt, and the next error says what is wrong
            for connection in connections.all(initialized_only=True):
                if connection.errors_occurred:
                    forget_connection(connection.alias)

    def should_sync(self) -> bool:
        return self._real is not None and self._real.should_sync()

    def _do_sync(self) -> None:
        if self._real is not None:
            self._real._do_sync()

    def sync(self) -> None:
        if self._real is not None:
            self._real.sync()

    def close(self) -> None:
        """Save the schedule and give the lease back; doing it twice changes nothing.

        Celery's handler of SIGTERM calls it in the middle of whatever is under way. Then it does nothing yet: the
        handler ends the loop, which calls it once more.
        """
        if self._works or self._is_closed:
            return
        self._is_closed = True
        try:
            if self._real is not None:
                if self._lease.is_sure() or self._lease.hold() is Standing.HELD:
                    self._real.close()
                else:
                    self._abandon()
        finally:
            self._lease.release()
            self._on_end()

    def next_due_at(self) -> float | None:
        """Return when the next run is due, in seconds since 1970; None if that isn't known."""
        heap = getattr(self._real, "_heap", None)
        try:
            return float(heap[0][0]) if heap else None
        except (TypeError, ValueError, IndexError):  # some other kind of heap
            return None

    def _at_hand(self) -> Any:
        if self._real is not None:
            return self._real
        if self._idle is None:
            self._idle = self._make_idle()
        return self._idle

    def _start(self) -> None:
        real = self._build()
        entries = list((getattr(real, "schedule", None) or {}).values())
        if self._ledger is not None:
            self._ledger.load([entry.name for entry in entries])
            before = self._lease.before
            for entry in entries:
                if before is not None:
                    self._ledger.restore(entry, before.seen_at)
                self._ledger.correct(entry)
            self._guard(real, self._ledger)
        self._real = real
        if self._lease.before is not None:
            missed.report(entries, self._lease.before.seen_at)

    def _guard(self, real: Any, ledger: Ledger) -> None:
        populate_heap, apply_async = getattr(real, "populate_heap", None), real.apply_async

        def populate_corrected(*args: Any, **kwargs: Any) -> Any:
            # A schedule that was read again knows only what was written down.
            for entry in real.schedule.values():
                ledger.correct(entry)
            return populate_heap(*args, **kwargs)  # type: ignore[misc]

        def apply_noted(entry: Any, *args: Any, **kwargs: Any) -> Any:
            with put_off():
                run = ledger.begin(entry, self)
                try:
                    sent = apply_async(entry, *args, **kwargs)
                except Exception:
                    ledger.end(entry, run)
                    raise
                ledger.end(entry, run)
                return sent

        if populate_heap is not None:
            real.populate_heap = populate_corrected
        real.apply_async = apply_noted

    def is_sure(self) -> bool:
        return self._lease.is_sure()

    def renew(self) -> bool:
        return self._lease.hold() is Standing.HELD

    def _abandon(self) -> None:
        real, self._real = self._real, None
        if real is None:
            return
        # What would otherwise be written by DatabaseScheduler when the process ends, and by a shelf when it is closed.
        dirty = getattr(real, "_dirty", None)
        if isinstance(dirty, set):
            dirty.clear()
        store = getattr(real, "_store", None)
        with suppress(Exception):
            if store is not None:
                store.cache.clear()
                store.close()
        connection = vars(real).get("connection")
        with suppress(Exception):
            if connection is not None:
                connection.release()

    def _tell(self, standing: Standing) -> None:
        before, self._told = self._told, standing
        if standing is Standing.UNSURE:
            if self._unsure_since is None:
                self._unsure_since = time.time()
        elif standing is Standing.HELD:
            self._report_unsure_time()
        else:
            self._unsure_since = None
        if standing is before:
            return
        other = self._lease.other
        who = other.who if other is not None else "another"
        if standing is Standing.STANDBY and self._real is not None:
            logger.warning("this beat was silent for too long and lost its lease; it stands by")
        elif standing is Standing.STANDBY and before is not Standing.STANDBY:
            logger.warning("the beat %s is at work; this one stands by, and takes over when that is gone", who)
        elif standing is Standing.HELD and before is Standing.STANDBY:
            gone = self._lease.before
            logger.warning("this beat takes over%s", f" from {gone.who}" if gone is not None else "")
        elif standing is Standing.UNSURE:
            logger.error("beat sends nothing, for it can't know whether another does")

    def _report_unsure_time(self) -> None:
        since, self._unsure_since = self._unsure_since, None
        if since is not None and self._real is not None:
            missed.report(list(self._real.schedule.values()), since)
