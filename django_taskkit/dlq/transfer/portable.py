"""A dead letter as one line of JSON, to move it to another environment: the row, its message and its history.

A line says which format it has, and then everything that the row has, by the names of the columns. The body is in
base64; headers and properties are the very text that the table holds, so that what kombu marks in it (dates, UUIDs,
decimals) and what a database would refuse (NUL, lone surrogates) arrive as they were. Nothing is pickled or unpickled.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone as utc_zone
from functools import cache
from typing import Any

from django.conf import settings as django_settings
from django.db import models
from django.db.models import ExpressionWrapper, F, QuerySet
from django.db.models.functions import Length
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, MessageField
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.exceptions import TaskkitError

FORMAT = 1
"""Which keys a line has; another number is another release's."""

CHUNK = 500
"""Rows whose keys are held in memory at a time."""

CHUNK_BYTES = 8_000_000
"""Bytes of bodies that are held in memory at a time, unless a single one is larger."""

_LARGEST_INTEGER = 2_147_483_647
"""What an integer column holds on every database."""

Columns = dict[str, Any]


class UnreadableLineError(TaskkitError, ValueError):
    """A line is no dead letter, or not one that this release can read."""


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A dead letter that is in no table yet."""

    columns: Columns
    """Values of a ``DeadLetter``, all of a kind that every database takes."""
    events: tuple[Columns, ...] = ()
    """Values of its ``DeadLetterEvent`` rows, oldest first."""

    @property
    def task_id(self) -> str:
        return str(self.columns["task_id"])

    @property
    def weight(self) -> int:
        """How much memory it takes, roughly, in bytes."""
        rows = (self.columns, *self.events)
        return sum(len(value) for row in rows for value in row.values() if isinstance(value, (str, bytes)))


@cache
def _fields(model: type[models.Model]) -> dict[str, models.Field[Any, Any]]:
    fields = model._meta.concrete_fields
    return {field.name: field for field in fields if not field.primary_key and not field.is_relation}


@cache
def _choices(field: models.Field[Any, Any]) -> frozenset[Any]:
    return frozenset(choice for choice, _label in field.flatchoices)


def lines(letters: QuerySet[DeadLetter]) -> Iterator[str]:
    """Yield a line for each of ``letters``, in the order of their keys, with a bounded number in memory.

    What is added meanwhile is left out, and so is what no longer passes the filters when its turn comes.
    """
    letters = letters.order_by("pk")
    last = letters.values_list("pk", flat=True).last()
    done = 0
    while last is not None:
        sizes = letters.filter(pk__gt=done, pk__lte=last).values_list("pk", Length("body"))[:CHUNK]
        keys = list(sizes)
        for chunk in _by_size(keys):
            yield from _lines_of(letters, chunk)
        if len(keys) < CHUNK:
            return
        done = keys[-1][0]


def _by_size(keys: list[tuple[int, int]]) -> Iterator[list[int]]:
    chunk: list[int] = []
    size = 0
    for key, length in keys:
        if chunk and size + length > CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(key)
        size += length
    if chunk:
        yield chunk


def _lines_of(letters: QuerySet[DeadLetter], keys: list[int]) -> Iterator[str]:
    fields = _fields(DeadLetter)
    event_fields = _fields(DeadLetterEvent)
    # The history first: a letter that changes in between is left out by the filters, and never has half a history.
    history: dict[int, list[dict[str, Any]]] = defaultdict(list)
    events = DeadLetterEvent.objects.using(letters.db).filter(dead_letter__in=keys)
    for event in events.order_by("pk").values("dead_letter_id", *event_fields):
        history[event["dead_letter_id"]].append(event)
    raw = {name for name, field in fields.items() if isinstance(field, MessageField)}
    # Not decoded and encoded again: the same text as in the table.
    texts = {f"text_of_{name}": ExpressionWrapper(F(name), output_field=models.TextField()) for name in raw}
    rows = letters.filter(pk__in=keys).values("pk", *(name for name in fields if name not in raw), **texts)
    for row in rows:
        values = {name: row[f"text_of_{name}" if name in raw else name] for name in fields}
        yield line_of(values, history[row["pk"]])


def line_of(values: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> str:
    """Return the line, without its end, of a row and its history, each by the names of the columns."""
    return json.dumps(
        {
            "format": FORMAT,
            **{name: _plain(values[name]) for name in _fields(DeadLetter)},
            "events": [{name: _plain(event[name]) for name in _fields(DeadLetterEvent)} for event in events],
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, (str, int)):
        return value
    if isinstance(value, datetime):
        aware = timezone.make_aware(value) if timezone.is_naive(value) else value
        return aware.astimezone(utc_zone.utc).isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(bytes(value)).decode("ascii")
    return value


def letter_in(line: str | bytes) -> Letter:
    """Return the dead letter that a line holds, with every value fit for its column.

    Raises:
        UnreadableLineError: it holds none; the message says what is wrong with it.
    """
    try:
        facts = json.loads(line if isinstance(line, str) else line.decode("utf-8"))
    except (ValueError, RecursionError) as exc:
        raise UnreadableLineError(f"it is no JSON: {exc}") from exc
    if not isinstance(facts, dict) or "format" not in facts:
        raise UnreadableLineError("it is no dead letter: a line of an export has a 'format'")
    if (found := facts.pop("format")) != FORMAT or isinstance(found, bool):
        raise UnreadableLineError(f"its format is {found!r}, and this release reads {FORMAT}")
    events = facts.pop("events", [])
    if not isinstance(events, list):
        raise UnreadableLineError("its 'events' are no list")
    columns = _columns(DeadLetter, facts, "")
    if not columns["task_id"]:
        raise UnreadableLineError("its 'task_id' is empty")
    return Letter(
        columns=columns,
        events=tuple(
            _columns(DeadLetterEvent, event, f"event {number}: ") for number, event in enumerate(events, start=1)
        ),
    )


def _columns(model: type[models.Model], facts: Any, where: str) -> Columns:
    if not isinstance(facts, dict):
        raise UnreadableLineError(f"{where}it is no object")
    fields = _fields(model)
    if unknown := sorted(set(facts) - set(fields)):
        raise UnreadableLineError(f"{where}{unknown[0]!r} is not known to this release")
    columns: Columns = {}
    for name, field in fields.items():
        if name in facts:
            try:
                columns[name] = _value(field, facts[name])
            except (ValueError, OverflowError, RecursionError) as exc:
                raise UnreadableLineError(f"{where}{name!r} {exc}") from exc
        elif not field.has_default() and not field.blank:
            raise UnreadableLineError(f"{where}it has no {name!r}")
    return columns


def _value(field: models.Field[Any, Any], value: Any) -> Any:
    """Return what the column takes.

    Raises:
        ValueError: nothing of the kind; its text goes on from the field's name.
    """
    if value is None and field.null:
        return None
    if isinstance(field, models.BooleanField):
        if not isinstance(value, bool):
            raise ValueError(f"is {_short(value)}, and has to be true or false")
        return value
    if isinstance(field, models.IntegerField):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST_INTEGER:
            raise ValueError(f"is {_short(value)}, and has to be a whole number from 0 to {_LARGEST_INTEGER}")
        return value
    if not isinstance(value, str):
        raise ValueError(f"is {_short(value)}, and has to be a text")
    if isinstance(field, models.DateTimeField):
        return _moment(value)
    if isinstance(field, models.BinaryField):
        return _bytes(value)
    if isinstance(field, MessageField):
        return _mapping(value)
    if field.choices and value not in _choices(field):
        raise ValueError(f"is {_short(value)}, which this release does not know")
    return bounded(value, field.max_length) if field.max_length else storable(value)


def _moment(text: str) -> datetime:
    try:
        moment = parse_datetime(text)
    except ValueError as exc:
        raise ValueError(f"is {_short(text)}: {exc}") from exc
    if moment is None or moment.tzinfo is None:
        raise ValueError(f"is {_short(text)}, and has to be a time with its zone: 2026-11-21T03:00:00+00:00")
    moment = moment.astimezone(utc_zone.utc)
    return moment if django_settings.USE_TZ else timezone.make_naive(moment)


def _bytes(text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError as exc:
        raise ValueError(f"is not base64: {exc}") from exc


def _mapping(text: str) -> str:
    if not text:
        return text
    try:
        mapping = json.loads(text)
    except ValueError as exc:
        raise ValueError(f"is not JSON: {exc}") from exc
    if not isinstance(mapping, dict):
        raise ValueError("is not a JSON object")
    return text if text.isascii() else json.dumps(mapping)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
