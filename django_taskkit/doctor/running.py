"""Run the probes one after the other: each has its time, and what it raises is a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum

from django.db import DatabaseError, connections, router, transaction

from django_taskkit.dlq.durable import NoConnectionError, durable
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.doctor.finding import SEVERITY, Finding, Level, unknown
from django_taskkit.doctor.site import Site
from django_taskkit.exceptions import BrokerUnreachableError, TaskkitError
from django_taskkit.observability.deadline import within

SPEAKING = (TaskkitError, DatabaseError, OSError, ImportError, AttributeError, TypeError)
"""Errors whose text names hosts, settings and modules; of others it may be a part of a URL, password and all."""


class Where(Enum):
    """How a probe is kept from waiting for ever."""

    THREAD = "in a thread that is given up after the time"
    DATABASE = "on a database connection that is cut after the time"
    HERE = "it asks nobody"


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One question to the running system."""

    name: str
    """As ``--only`` and ``--skip`` say; also the id of what it finds if it can't look."""

    asks: str
    """What it looks at, for the help text."""

    look: Callable[[Site], Iterable[Finding]]

    where: Where = Where.THREAD


def examine(site: Site, probes: Iterable[Probe]) -> Iterator[tuple[Probe, Finding]]:
    """Yield what each probe finds, the probes in order; never raises."""
    for probe in probes:
        for found in _findings(site, probe):
            yield probe, found


def _findings(site: Site, probe: Probe) -> list[Finding]:
    try:
        if probe.where is Where.THREAD:
            return within(site.timeout, lambda: _in_thread(probe, site), f"doctor.{probe.name}")
        if probe.where is Where.DATABASE:
            return _on_database(probe, site)
        return list(probe.look(site))
    except BrokerUnreachableError:
        return [unknown(probe.name, "The broker can't be reached, so this could not be looked at.")]
    except NoConnectionError:
        return [unknown(probe.name, "The database can't be reached, so this could not be looked at.")]
    except TimeoutError:
        return [unknown(probe.name, f"No answer in {site.timeout:g} s.", "Give it more time with --timeout.")]
    except Exception as exc:
        return [unknown(probe.name, f"This could not be looked at: {said_by(exc)}")]


def _on_database(probe: Probe, site: Site) -> list[Finding]:
    if site.database_is_down:
        raise NoConnectionError
    using = router.db_for_read(DeadLetter)
    try:
        with durable(using, site.timeout), transaction.atomic(using=using):
            return list(probe.look(site))
    except NoConnectionError:
        site.database_is_down = True
        raise


def said_by(exc: Exception) -> str:
    """Return what may be shown of an error: its class, and its text if that can hold no password."""
    text = " ".join(str(exc).split())[:500] if isinstance(exc, SPEAKING) else ""
    return f"{type(exc).__name__}: {text}" if text else type(exc).__name__


def _in_thread(probe: Probe, site: Site) -> list[Finding]:
    try:
        return list(probe.look(site))
    finally:
        connections.close_all()  # the thread's own, such as those of a result backend in the database


def worst(findings: Iterable[Finding]) -> Level:
    """Return the worst level of ``findings``; ``ok`` if there are none."""
    return max((finding.level for finding in findings), key=lambda level: SEVERITY[level], default=Level.OK)
