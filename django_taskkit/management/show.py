"""``manage.py taskkit show ID``: all that is known of one dead letter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from celery.app import app_or_default
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent
from django_taskkit.dlq.privacy import named_arguments, redacted
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.text import shortened, storable
from django_taskkit.envelope import UndecodableError
from django_taskkit.exceptions import TaskkitError
from django_taskkit.management.list import letter_facts
from django_taskkit.management.terminal import Output, output, shown

HELP = "Show one dead letter: what happened, its arguments with secrets hidden, its message and its history."

SHOWN_LENGTH = 10_000
"""Characters of one argument that are shown; JSON has it whole."""

_ARGUMENTS_AS_TEXT = ("argsrepr", "kwargsrepr")
"""Headers with the arguments once more, as text that can't be redacted by name."""


def add_arguments(parser: CommandParser) -> None:
    parser.add_argument("task_id", metavar="ID", help="the task id")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="as one JSON object")
    how.add_argument("--pytest", action="store_true", help="as a failing test that makes the same call")


def handle(command: BaseCommand, **options: Any) -> None:
    row = DeadLetter.objects.filter(task_id=options["task_id"]).first()
    if row is None:
        raise CommandError(
            f"There is no dead letter with the task id {options['task_id']!r}. See: manage.py taskkit list --status any"
        )
    with output(command) as out:
        if options["pytest"]:
            out.line(_as_pytest(row))
        elif options["json"]:
            out.json(_facts(row))
        else:
            _print(out, row)


def _as_pytest(row: DeadLetter) -> str:
    from django_taskkit.dlq.reproduction import as_pytest

    try:
        return as_pytest(row, project_app()).rstrip("\n")
    except TaskkitError as exc:
        raise CommandError(str(exc)) from exc


def _facts(row: DeadLetter) -> dict[str, Any]:
    arguments, problem = _arguments(row)
    return {
        **letter_facts(row),
        "traceback": row.traceback,
        "arguments": arguments,
        "arguments_problem": problem,
        "message": _message(row),
        "history": [
            {"kind": event.kind, "at": event.at.isoformat(), "by": event.by, "generation": event.generation}
            | {"note": event.note}
            for event in row.events.all()
        ],
    }


def _arguments(row: DeadLetter) -> tuple[dict[str, Any] | None, str]:
    """Return the arguments by name with secrets hidden, or why there are none."""
    try:
        args, kwargs, _embed = row.envelope.payload()
    except UndecodableError as exc:
        return None, f"The arguments can't be shown: {exc}."
    named = redacted(named_arguments(app_or_default(), row.task_name, args, kwargs), conf.current().redact)
    return {str(name): _as_json(value) for name, value in named.items()}, ""


def _as_json(value: Any) -> Any:
    """Return ``value`` as JSON has it; YAML and MessagePack have keys and depths that JSON has not."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def _message(row: DeadLetter) -> dict[str, Any]:
    names = conf.current().redact
    headers = {key: value for key, value in row.headers.items() if key not in _ARGUMENTS_AS_TEXT and value is not None}
    return {
        "size": len(row.body),
        "content_type": row.content_type,
        "content_encoding": row.content_encoding,
        "exchange": row.exchange or "(default)",
        "routing_key": row.routing_key,
        "headers": _as_json(redacted(headers, names)),
        "properties": _as_json(redacted(row.properties, names)),
    }


def _print(out: Output, row: DeadLetter) -> None:
    out.line(shown(f"{row.task_name or '(no task)'}[{row.task_id}]"))
    _print_facts(out, {name: value for name, value in _what_happened(row) if value})
    if row.traceback:
        _print_title(out, "Traceback")
        _print_text(out, row.traceback)
    _print_title(out, "Arguments")
    arguments, problem = _arguments(row)
    if arguments:
        _print_facts(out, arguments)
    else:
        out.line(shown(f"  {problem or 'none'}"))
    _print_title(out, "History")
    for event in row.events.all():
        out.line(shown(f"  {_history(event)}"))
    _print_title(out, "Message")
    _print_facts(out, _message(row))


def _what_happened(row: DeadLetter) -> Iterator[tuple[str, Any]]:
    yield "status", row.status + (f", put back {row.requeue_count} times" if row.requeue_count > 1 else "")
    yield "reason", row.reason
    yield "exception", row.exception_class
    yield "", row.exception_message
    yield "died", f"{_local(row.died_at)}, after {row.attempts} attempt{'' if row.attempts == 1 else 's'}"
    if row.body_ran:
        yield "body ran", "its task had ended well; a requeue does its work once more"
    yield "queue", row.queue
    yield "group", row.fingerprint
    yield "worker", row.worker
    yield "release", row.release
    for name in ("root_id", "parent_id", "group_id"):
        if (value := getattr(row, name)) != row.task_id:
            yield name.replace("group_id", "Celery group").replace("_", " "), value


def _history(event: DeadLetterEvent) -> str:
    by = f" by {event.by}" if event.by else ""
    note = f": {' '.join(event.note.split())}" if event.note else ""
    return f"{_local(event.at)}  {event.kind}{by}{note}"


def _local(when: Any) -> str:
    if timezone.is_aware(when):
        when = timezone.localtime(when)
    return f"{when:%Y-%m-%d %H:%M:%S %Z}".rstrip()


def _print_title(out: Output, title: str) -> None:
    out.line()
    out.line(title)


def _print_facts(out: Output, facts: Mapping[str, Any]) -> None:
    given = {shown(str(name)): _text(value) for name, value in facts.items()}
    width = max(map(len, given), default=0)
    for name, text in given.items():
        first, *more = text.split("\n")
        out.line(f"  {name.ljust(width)}  {shown(first)}".rstrip())
        for line in more:
            out.line(f"  {' ' * width}  {shown(line, lines=True)}")


def _print_text(out: Output, text: str) -> None:
    for line in text.rstrip("\n").split("\n"):
        out.line(f"  {shown(line, lines=True)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        value = json.dumps(value, indent=2, ensure_ascii=False)
    return shortened(storable(value), SHOWN_LENGTH)
