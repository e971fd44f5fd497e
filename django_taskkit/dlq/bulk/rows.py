"""Rows in bulk: take many dead letters at once, write down what was done with them, or give them back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from django.db import connections, models
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Length
from django.utils.translation import gettext as _

from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status
from django_taskkit.dlq.text import storable
from django_taskkit.envelope import Envelope, headers_again

HEAVY = ("body", "headers", "properties", "traceback")
"""Columns that a report of thousands of refusals does not hold in memory."""

BYTES = 2_000_000
"""Bytes of bodies and headers that are in memory at a time; one message may be larger."""

SIZE = Length("body") + Length("headers")

DeadLetters = QuerySet[DeadLetter] | DeadLetter | Iterable[DeadLetter | int]


class Refusal(NamedTuple):
    """A row that was left as it is, and why."""

    dead_letter: DeadLetter
    reason: str


class Taken(NamedTuple):
    """What a row said when it was locked; nothing else changes it until the transaction ends."""

    pk: int
    task_id: str
    task_name: str
    status: str
    requeue_count: int


MESSAGE = ("body", "content_type", "content_encoding", "headers", "properties", "exchange", "routing_key", "queue")
"""The columns of a row's envelope."""


def key_chunks(dead_letters: DeadLetters, size: int, sizes: dict[int, int] | None = None) -> Iterator[list[int]]:
    """Yield primary keys, at most ``size`` at a time, and no cursor open while rows are written.

    Where ``sizes`` is given and the rows are asked for anyway, it gets those of the chunk for :func:`by_size`.
    """
    if isinstance(dead_letters, DeadLetter):
        yield [dead_letters.pk]
    elif isinstance(dead_letters, QuerySet) and not dead_letters.query.is_sliced:
        last: int | None = None
        while True:
            rest = dead_letters if last is None else dead_letters.filter(pk__gt=last)
            rest = rest.order_by("pk")
            if sizes is None:
                chunk = list(rest.values_list("pk", flat=True)[:size])
            else:
                sizes.clear()
                sizes.update(rest.values_list("pk", SIZE)[:size])
                chunk = list(sizes)
            if chunk:
                yield chunk
            if len(chunk) < size:
                return
            last = chunk[-1]
    else:
        rows = iter(dead_letters)
        while chunk := [row if isinstance(row, int) else row.pk for row in islice(rows, size)]:
            yield chunk


def by_size(
    using: str, keys: Sequence[int], at_once: int, sizes: Mapping[int, int] | None = None
) -> Iterator[list[int]]:
    """Split ``keys`` so that the messages of a part fit into memory; rows that are gone stay in it."""
    if not sizes:
        sizes = dict(DeadLetter.objects.using(using).filter(pk__in=keys).order_by().values_list("pk", SIZE))
    part: list[int] = []
    total = 0
    for key in keys:
        size = sizes.get(key) or 0
        if part and (len(part) >= at_once or total + size > BYTES):
            yield part
            part, total = [], 0
        part.append(key)
        total += size
    if part:
        yield part


def take(
    using: str, keys: Collection[int], allowed: Collection[Status], *, even_if_ran: bool = True
) -> tuple[list[Taken], list[Refusal]]:
    """Lock those of ``keys`` that may be changed, in their order; refuse the others. Call it in a transaction."""
    able = _locked(using, keys, allowed, even_if_ran).values_list(*Taken._fields)
    found = {row[0]: Taken(*row) for row in able}
    return [found[key] for key in keys if key in found], _refusals(using, keys, found, allowed)


def take_messages(
    using: str,
    keys: Collection[int],
    allowed: Collection[Status],
    *,
    even_if_ran: bool = True,
    eta: datetime | None = None,
    only_at: Mapping[int, int] | None = None,
) -> tuple[list[tuple[Taken, Envelope]], list[Refusal]]:
    """As :func:`take`, with the messages to send for their next requeue (:meth:`Envelope.again`).

    With ``only_at``, rows that were requeued another number of times than it says for their key are refused.
    """
    able = _locked(using, keys, allowed, even_if_ran).values_list(*Taken._fields, *MESSAGE)
    cut = len(Taken._fields)
    found: dict[int, tuple[Taken, Envelope]] = {}
    gone_on: set[int] = set()
    for columns in able:
        row = Taken(*columns[:cut])
        if only_at is not None and only_at.get(row.pk) != row.requeue_count:
            gone_on.add(row.pk)
            continue
        message = dict(zip(MESSAGE, columns[cut:], strict=True))
        message["body"] = bytes(message["body"])
        message["headers"] = headers_again(message["headers"], generation=row.requeue_count + 1, eta=eta)
        found[row.pk] = row, Envelope(**message)
    return [found[key] for key in keys if key in found], _refusals(using, keys, found, allowed, gone_on)


def _locked(using: str, keys: Collection[int], allowed: Collection[Status], even_if_ran: bool) -> QuerySet[DeadLetter]:
    rows = DeadLetter.objects.using(using).filter(pk__in=keys)
    if not connections[using].features.has_select_for_update:
        # SQLite: whoever has written first has the database. Reading first, and then finding that somebody else has
        # written meanwhile, would end in "database is locked" at once.
        rows.filter(pk=next(iter(keys))).update(status=F("status"))
    able = rows.filter(status__in=allowed)
    if not even_if_ran:
        able = able.filter(body_ran=False)
    # In one order for all, so that two operators don't wait for each other.
    return able.order_by("pk").select_for_update()


def _refusals(
    using: str,
    keys: Collection[int],
    found: Collection[int],
    allowed: Collection[Status],
    gone_on: Collection[int] = (),
) -> list[Refusal]:
    left = [key for key in keys if key not in found]
    if not left:
        return []
    rows = {row.pk: row for row in DeadLetter.objects.using(using).filter(pk__in=left).defer(*HEAVY).order_by()}
    return [
        Refusal(rows[key], _("it was requeued meanwhile, and died again"))
        if key in gone_on and key in rows
        else _refusal(rows.get(key) or DeadLetter(pk=key), key in rows, allowed)
        for key in left
    ]


def _refusal(row: DeadLetter, exists: bool, allowed: Collection[Status]) -> Refusal:
    if not exists:
        return Refusal(row, _("it was deleted"))
    if row.body_ran and row.status in allowed:
        return Refusal(row, _("its task had ended well, and would do its work once more"))
    return Refusal(row, _("it is %(status)s by now") % {"status": row.get_status_display()})


def workflow_waits(using: str, taken: Sequence[Taken]) -> set[int]:
    """Return the keys of those whose workflow waits for them: *held* now, or when they were requeued."""
    waiting = {row.pk for row in taken if row.status == Status.HELD}
    requeued = [row.pk for row in taken if row.status == Status.REQUEUED]
    if requeued:
        deaths = DeadLetterEvent.objects.using(using).filter(
            dead_letter__in=requeued, kind__in=[DeadLetterEvent.Kind.DIED, DeadLetterEvent.Kind.HELD]
        )
        last = dict(deaths.order_by("at", "pk").values_list("dead_letter", "kind"))
        waiting.update(key for key, kind in last.items() if kind == DeadLetterEvent.Kind.HELD)
    return waiting


def refused(using: str, reasons: dict[int, str]) -> list[Refusal]:
    """Return refusals of rows for ``reasons`` by primary key, also where a row was deleted."""
    rows = {row.pk: row for row in DeadLetter.objects.using(using).filter(pk__in=reasons).defer(*HEAVY).order_by()}
    return [Refusal(rows.get(key) or DeadLetter(pk=key), reason) for key, reason in reasons.items()]


def move(using: str, taken: Sequence[Taken], status: Status, *, is_sent: bool = False) -> None:
    """Give rows that were taken a new status, and count the requeue if their messages are sent."""
    changes = {"status": status, **({"requeue_count": F("requeue_count") + 1} if is_sent else {})}
    rows = DeadLetter.objects.using(using).filter(
        pk__in=[row.pk for row in taken], status__in={row.status for row in taken}
    )
    changed = rows.update(**changes)
    if changed != len(taken):  # a database that locks nothing; better nothing is sent than something twice
        raise RuntimeError(f"{len(taken)} dead letters were taken and {changed} are there; nothing was done")


def write_history(
    using: str, taken: Sequence[Taken], kind: DeadLetterEvent.Kind, *, at: datetime, by: str, note: str
) -> None:
    """Add one entry to the history of each row, in one statement; call it after :func:`move`."""
    values: dict[str, Any] = {
        "dead_letter": F("pk"),
        "kind": Value(kind.value, models.CharField()),
        "at": Value(at, models.DateTimeField()),
        "by": Value(by, models.CharField()),
        "generation": F("requeue_count"),
        "note": Value(storable(note), models.TextField()),
    }
    rows = DeadLetter.objects.using(using).filter(pk__in=[row.pk for row in taken]).order_by("pk")
    connection: Any = connections[using]
    select, parameters = rows.values_list(*values.values()).query.get_compiler(using).as_sql()
    quote = connection.ops.quote_name
    fields: Any = [DeadLetterEvent._meta.get_field(name) for name in values]
    columns = ", ".join(quote(field.column) for field in fields)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {quote(DeadLetterEvent._meta.db_table)} ({columns}) {select}", parameters)


def give_back(using: str, taken: Sequence[Taken], at: datetime) -> None:
    """Undo :func:`move` and :func:`write_history` for rows whose messages were not sent after all."""
    for status in {row.status for row in taken}:
        keys = [row.pk for row in taken if row.status == status]
        rows = DeadLetter.objects.using(using).filter(pk__in=keys)
        rows.update(status=status, requeue_count=F("requeue_count") - 1)
        events = DeadLetterEvent.objects.using(using).filter(dead_letter__in=keys)
        events.filter(kind=DeadLetterEvent.Kind.REQUEUED, at=at).delete()
