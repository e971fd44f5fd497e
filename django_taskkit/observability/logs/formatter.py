"""One JSON object for each log record, on one line, in ASCII."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping
from datetime import date, datetime, time, timezone
from decimal import Decimal
from math import isfinite
from typing import Any
from uuid import UUID

from django_taskkit.dlq.text import class_of, message_of, shortened
from django_taskkit.observability.logs.context import KEYS, facts_of
from django_taskkit.observability.logs.filter import ADDED, FACTS
from django_taskkit.observability.logs.redaction import (
    arguments_without_secrets,
    is_namedtuple,
    secret_names,
    text_of,
    text_without_secrets,
    without_secrets,
)

MESSAGE_LIMIT = 8_000
"""Characters of a message, of an exception's message and of each text in ``extra`` that are kept."""

TRACEBACK_LIMIT = 24_000
"""Characters of a traceback that are kept: the first and the last part."""

ITEMS_LIMIT = 100
"""How many items of a list or mapping in ``extra`` are kept."""

_DEPTH = 6
_COARSE = 10
"""A text is looked through for secrets before it is cut, lest one is cut in two; if it is this much too long, after."""

_OF_EVERY_RECORD = frozenset(
    {*vars(logging.makeLogRecord({})), "asctime", "message", "taskName", FACTS, ADDED, "task_name"}
)
_OF_CELERY = ("runtime", "eta")
"""What Celery's records have in ``data`` and the line doesn't say otherwise. ``runtime`` is in seconds."""

_PLAIN = (str, int, bool, type(None))


class JSONFormatter(logging.Formatter):
    """Write a record as a JSON object: see ``docs/logs.md`` for its keys, which stay what they are.

    ``timestamp, level, logger, message, pid`` are in every line; ``task, task_id, root_id, parent_id, attempt, queue,
    lane, request_id, worker`` where they are known; ``exception`` and ``stack`` where the record has them; and
    ``extra`` with what the caller has passed as such. Never raises: what can't be written is said in its place.

    There is nothing to set. What other formatters take (``format``, ``datefmt``, ``style``, ``validate``, ``defaults``)
    is taken and ignored: it stands in the ``LOGGING`` of who had one of those before.
    """

    def __init__(
        self,
        fmt: object = None,
        datefmt: object = None,
        style: object = "%",
        validate: object = True,
        *,
        format: object = None,  # the name in LOGGING
        defaults: object = None,
    ) -> None:
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        try:
            return json.dumps(self._line(record), allow_nan=False)
        except Exception as exc:
            return json.dumps(
                {
                    **_beginning(record),
                    "message": f"[a log record that can't be written: {type(exc).__name__}]",
                    "pid": record.process,
                }
            )

    def _line(self, record: logging.LogRecord) -> dict[str, Any]:
        names = secret_names()
        line = {**_beginning(record), "message": _cut(_message(record, names), MESSAGE_LIMIT, names)}
        facts = getattr(record, FACTS, None)
        try:
            line.update(facts_of(record) if facts is None else facts)
        except Exception as exc:  # a line without ids is better than none
            line["task"] = f"[unknown: {type(exc).__name__}]"
        line["pid"] = record.process
        if exception := _exception(record, names):
            line["exception"] = exception
        if record.stack_info:
            line["stack"] = _cut(str(record.stack_info), TRACEBACK_LIMIT, names)
        try:
            extra = _extra(record, names)
        except Exception as exc:  # the message is worth more
            extra = {"unknown": f"[what can't be written: {type(exc).__name__}]"}
        if extra:
            line["extra"] = extra
        return line


def _beginning(record: logging.LogRecord) -> dict[str, Any]:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return {
        "timestamp": at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "level": str(record.levelname),
        "logger": str(record.name),
    }


def _message(record: logging.LogRecord, names: tuple[str, ...]) -> str:
    try:
        message, args = str(record.msg), record.args
        if isinstance(args, Mapping):
            if args and ("%(args" in message or "%(kwargs" in message):
                args = _celery_arguments(args, names)
            return message % without_secrets(args, names) if args else message
        return message % tuple(without_secrets(arg, names) for arg in args) if args else message
    except Exception as exc:
        return f"[its arguments don't fit: {type(exc).__name__}] {record.msg!r}"


def _celery_arguments(data: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    args, kwargs = arguments_without_secrets(
        str(data.get("name", "")), str(data.get("args", "")), str(data.get("kwargs", "")), names
    )
    return {**data, "args": args, "kwargs": kwargs}


def _exception(record: logging.LogRecord, names: tuple[str, ...]) -> dict[str, str]:
    info: Any = record.exc_info
    if not info or not isinstance(info, tuple) or info[1] is None:
        return {"traceback": _cut(record.exc_text, TRACEBACK_LIMIT, names)} if record.exc_text else {}
    kind, exc, tb = info
    try:
        text = "".join(traceback.format_exception(kind, exc, tb))
    except Exception:  # Celery's stand-ins for a traceback, or an exception that can't be shown
        text = f"{class_of(exc)}: {message_of(exc, MESSAGE_LIMIT)}"
    return {
        "class": class_of(exc),
        "message": _cut(message_of(exc, MESSAGE_LIMIT * _COARSE), MESSAGE_LIMIT, names),
        "traceback": _cut(text, TRACEBACK_LIMIT, names),
    }


def _extra(record: logging.LogRecord, names: tuple[str, ...]) -> dict[str, Any]:
    added = getattr(record, ADDED, ())
    found = {
        name: value
        for name, value in vars(record).items()
        if name not in _OF_EVERY_RECORD and name not in added and not (name in KEYS and value == "???")
    }
    data = found.get("data")
    if isinstance(data, Mapping) and "id" in data and "name" in data:
        del found["data"]
        found.update({name: data[name] for name in _OF_CELERY if data.get(name) is not None})
    return {text_of(name): _plain(value, names) for name, value in without_secrets(found, names).items()}


def _plain(value: Any, names: tuple[str, ...], depth: int = _DEPTH) -> Any:
    """Return ``value`` as something that JSON has; what it hasn't becomes a text."""
    if type(value) is float:
        return value if isfinite(value) else str(value)
    if isinstance(value, str):
        return _cut(value, MESSAGE_LIMIT, names)
    if type(value) in _PLAIN:
        return value
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    if is_namedtuple(value):
        value = value._asdict()
    if depth:
        if isinstance(value, Mapping):
            items = list(value.items())[:ITEMS_LIMIT]
            return {text_of(key): _plain(item, names, depth - 1) for key, item in items}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_plain(item, names, depth - 1) for item in list(value)[:ITEMS_LIMIT]]
    try:
        text = repr(value)
    except Exception as exc:
        text = f"[a {type(value).__name__} whose repr raised {type(exc).__name__}]"
    return _cut(text, MESSAGE_LIMIT, names)


def _cut(text: str, limit: int, names: tuple[str, ...]) -> str:
    return shortened(text_without_secrets(shortened(text, limit * _COARSE), names), limit)
