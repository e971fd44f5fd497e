"""Do all have the same time? ETAs, expiry, locks and signs of life compare times of different machines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from django.db import connections, router

from django_taskkit.dlq.models import DeadLetter
from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.redis import facts_of
from django_taskkit.doctor.site import Site
from django_taskkit.observability.workers import can_ask

CLOCKS = "clocks"
DATABASE_CLOCK = "database-clock"

NOTICED = 2.0
"""Seconds of difference that are worth a word."""

WRONG = 30.0
"""Seconds from which on something will go wrong: a beat or relay that lives is taken for dead after two minutes."""

REMEDY = "Run an NTP client (chrony, systemd-timesyncd) on every machine, and look at its state."

_NOW = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "mysql": "SELECT unix_timestamp(sysdate(6))",
}


@dataclass(frozen=True)
class Clock:
    """Somebody's clock, compared with ours."""

    whose: str
    ahead: float
    """Seconds; negative: behind."""
    error: float
    """Seconds by which ``ahead`` may be wrong."""

    @property
    def difference(self) -> float:
        """Seconds by which it is certainly wrong, or ours is."""
        return max(0.0, abs(self.ahead) - self.error)

    def __str__(self) -> str:
        return f"{self.whose} is {abs(self.ahead):.1f} s {'ahead' if self.ahead > 0 else 'behind'}"


def clocks(site: Site) -> Iterator[Finding]:
    """``clocks``: the workers' and Redis's against this machine's."""
    known = []
    if can_ask(site.app):
        known += [
            Clock(worker.hostname, worker.clock_ahead, worker.clock_error)
            for worker in site.workers()
            if worker.clock_ahead is not None
        ]
    if site.driver == "redis":
        facts = facts_of(site)
        if facts.clock_ahead is not None:
            known.append(Clock("Redis", facts.clock_ahead, facts.clock_error))
    yield compared(CLOCKS, known)


def database_clock(site: Site) -> Iterator[Finding]:
    """``database-clock``: the database server's against this machine's."""
    connection = connections[router.db_for_read(DeadLetter)]
    question = _NOW.get(connection.vendor)
    if question is None:
        yield ok(DATABASE_CLOCK, f"{connection.vendor} has no clock of its own, or is not asked.")
        return
    with connection.cursor() as cursor:
        before, began = time.time(), time.monotonic()
        cursor.execute(question)
        theirs = float(cursor.fetchone()[0])
        took = time.monotonic() - began
    yield compared(DATABASE_CLOCK, [Clock("The database", theirs - (before + took / 2), took / 2)])


def compared(id: str, known: list[Clock]) -> Finding:
    if not known:
        return unknown(id, "Nobody told what time it is.")
    off = sorted((clock for clock in known if clock.difference > NOTICED), key=lambda clock: -clock.difference)
    if not off:
        most = max(known, key=lambda clock: clock.difference)
        return ok(id, f"{len(known)} compared with this machine's, none is off by more than {most.difference:.1f} s.")
    text = f"Clocks differ from this machine's: {', '.join(map(str, off[:5]))}."
    return (error if off[0].difference > WRONG else warning)(id, text, REMEDY)
