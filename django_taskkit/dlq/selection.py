"""Which dead letters are meant: the filters of the command line, as one value."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from django_taskkit.dlq.models import DeadLetter, Reason, Status

OPEN = "open"
"""The status of what waits for someone: dead, and held."""

CHUNK = 500
"""Rows that are read at a time."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Filters, all of which a dead letter has to pass; with none, those that the admin shows as open.

    ``task``, ``exception`` and ``queue`` may hold ``*`` for any characters: ``orders.*``, ``*Timeout``. Capital and
    small letters differ, whatever the database's collation says.
    """

    ids: tuple[str, ...] = ()
    """Task ids."""
    task: str = ""
    reason: str = ""
    exception: str = ""
    """A class with its module, or the end of it: ``requests.exceptions.Timeout``, ``Timeout``."""
    queue: str = ""
    group: str = ""
    """A fingerprint, or how it begins."""
    status: str = OPEN
    """One of :class:`Status`, or ``"open"``; empty: any."""
    since: datetime | None = None
    until: datetime | None = None
    """Died not before, and before."""
    revoked: bool = False
    """Also those that somebody revoked on purpose; a filter by id or by reason lets them pass in any case."""

    def __post_init__(self) -> None:
        for name, choices in (("status", [OPEN, *Status.values]), ("reason", Reason.values)):
            value = getattr(self, name)
            if value and value not in choices:
                raise ValueError(f"there is no {name} {value!r}; there are {', '.join(choices)}")

    def queryset(self) -> QuerySet[DeadLetter]:
        rows = DeadLetter.objects.all()
        for condition in self._conditions():
            rows = rows.filter(condition)
        return rows

    @property
    def hides_revoked(self) -> bool:
        return not (self.revoked or self.ids or self.reason)

    def hidden(self) -> int:
        """Return how many are left out only because somebody revoked them."""
        return replace(self, reason=Reason.REVOKED.value).queryset().count() if self.hides_revoked else 0

    def _conditions(self) -> Iterator[Q]:
        if self.ids:
            yield Q(task_id__in=self.ids)
        if self.status:
            yield Q(status__in=[Status.DEAD, Status.HELD]) if self.status == OPEN else Q(status=self.status)
        if self.reason:
            yield Q(reason=self.reason)
        if self.hides_revoked:
            yield ~Q(reason=Reason.REVOKED)
        for name, column in (("task", "task_name"), ("queue", "queue")):
            if pattern := getattr(self, name):
                yield _like(column, pattern)
        if self.exception:
            # A whole name: from the start, or after a dot. Rows have no module for the classes of Python itself.
            yield Q(exception_class__regex=rf"^(.*\.)?{_regex(self.exception.removeprefix('builtins.'))}$")
        if self.group:
            yield Q(fingerprint__startswith=self.group.lower())
        if self.since:
            yield Q(died_at__gte=self.since)
        if self.until:
            yield Q(died_at__lt=self.until)

    def __str__(self) -> str:
        """Return it as the options of the command line."""
        parts = []
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if value == field.default:
                continue
            if field.name == "ids":
                parts += [f"--id {shlex.quote(task_id)}" for task_id in value]
            elif value is True:
                parts.append(f"--{field.name}")
            else:
                text = value.isoformat() if isinstance(value, datetime) else value
                parts.append(f"--{field.name} {shlex.quote(text or 'any')}")
        return " ".join(parts)


def _like(column: str, pattern: str) -> Q:
    # A regular expression, since only that tells "a" from "A" on all three databases: LIKE doesn't on SQLite,
    # equality doesn't on MariaDB. With equality as well, an index can be used.
    case = Q(**{f"{column}__regex": f"^{_regex(pattern)}$"})
    return case if "*" in pattern else Q(**{column: pattern}) & case


def _regex(pattern: str) -> str:
    return ".*".join(map(re.escape, pattern.split("*")))


def newest_first(rows: QuerySet[DeadLetter]) -> Iterator[DeadLetter]:
    """Yield the rows by the time of death, the latest first, with only a page of them in memory.

    Page by page, because MariaDB's driver would fetch the whole result at once.
    """
    page = list(rows.order_by("-died_at", "-pk")[:CHUNK])
    while page:
        yield from page
        last = page[-1]
        # The first condition says no more than the second, in a way that an index can be used for.
        rest = rows.filter(died_at__lte=last.died_at).filter(
            Q(died_at__lt=last.died_at) | Q(died_at=last.died_at, pk__lt=last.pk)
        )
        page = list(rest.order_by("-died_at", "-pk")[:CHUNK])
