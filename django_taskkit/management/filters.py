"""The filters that the verbs of ``manage.py taskkit`` share, and how they read times."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from django_taskkit.dlq.models import Reason, Status
from django_taskkit.dlq.selection import OPEN, Selection

ANY_STATUS = "any"

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_NARROWING = ("ids", "task", "reason", "exception", "queue", "group", "since", "until")


def add_filters(parser: CommandParser, status: str = OPEN, revoked: bool = False) -> None:
    """Give ``parser`` the options of a :class:`Selection`.

    ``status`` is the default. With ``revoked``, tasks that were revoked are always meant as well; else on request.
    """
    group = parser.add_argument_group("which dead letters")
    group.add_argument(
        "--id", dest="ids", type=given, metavar="ID", action="append", default=[], help="a task id; may be repeated"
    )
    group.add_argument("--task", type=given, metavar="NAME", help="the task; * stands for anything: 'orders.*'")
    group.add_argument("--reason", choices=Reason.values, metavar="REASON", help=", ".join(Reason.values))
    group.add_argument(
        "--exception", type=given, metavar="CLASS", help="the exception, with its module or without; may hold *"
    )
    group.add_argument("--queue", type=given, metavar="NAME", help="the queue that they came from; may hold *")
    group.add_argument(
        "--group", type=given, metavar="FINGERPRINT", help="the fingerprint of their failure, or how it begins"
    )
    choices = [OPEN, *Status.values, ANY_STATUS]
    group.add_argument(
        "--status",
        choices=choices,
        metavar="STATUS",
        help=f"{', '.join(choices)}; open is dead and held; default: {status}, with --id any",
    )
    parser.set_defaults(default_status=status)
    group.add_argument(
        "--since", type=moment, metavar="TIME", help="died at that time or later: 2026-11-21T03:00, or '2h' ago"
    )
    group.add_argument("--until", type=moment, metavar="TIME", help="died before that time")
    if not revoked:
        group.add_argument(
            "--revoked",
            action="store_true",
            help="also tasks that somebody revoked, which are left out unless --id or --reason names them",
        )


def selection_of(options: dict[str, Any]) -> Selection:
    """Return what the options of :func:`add_filters` say.

    Raises:
        CommandError: ``--since`` is not before ``--until``.
    """
    since, until = options["since"], options["until"]
    if since and until and since >= until:
        raise CommandError(
            "Nothing lies between --since and --until; from two hours to one hour ago is --since 2h --until 1h.",
            returncode=2,
        )
    status = options["status"] or (ANY_STATUS if options["ids"] else options["default_status"])
    return Selection(
        ids=tuple(options["ids"]),
        status="" if status == ANY_STATUS else status,
        revoked=options.get("revoked", True),
        since=since,
        until=until,
        **{name: options[name] or "" for name in ("task", "reason", "exception", "queue", "group")},
    )


def is_narrowed(options: dict[str, Any]) -> bool:
    """Say whether any filter but the status was given; a verb that changes rows should ask for one, or ``--all``."""
    return any(options[name] for name in _NARROWING)


def given(text: str) -> str:
    """Return ``text``, which must not be empty: ``--task "$TASK"`` without the variable would mean every task."""
    if not text.strip():
        raise ArgumentTypeError("it is empty; leave the option out, or give a value")
    return text


def moment(text: str) -> datetime:
    """Return the time that ``text`` names: ISO 8601, a date, or how long ago: 90s, 15m, 2h, 3d, 1w.

    A time without a time zone is one of the project's own, ``TIME_ZONE``.
    """
    return _time(text, lambda now, length: now - length, "how long ago")


def coming(text: str) -> datetime:
    """Return the time that ``text`` names: ISO 8601, a date, or how long from now: 90s, 15m, 2h, 3d, 1w."""
    return _time(text, lambda now, length: now + length, "how long from now")


def seconds(text: str) -> float:
    """Return the seconds that ``text`` names: a number of them, or 90s, 15m, 2h, 3d, 1w."""
    if (length := _length(text)) is not None:
        return length.total_seconds()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", text):
        return float(text)
    raise ArgumentTypeError(f"{text!r} is no length of time; give seconds, or 90s, 15m, 2h, 3d")


def _time(text: str, from_now: Callable[[datetime, timedelta], datetime], relative: str) -> datetime:
    try:
        if (length := _length(text)) is not None:
            return from_now(timezone.now(), length)
        when = parse_datetime(text) or parse_datetime(f"{text}T00:00")
    except (ValueError, OverflowError) as exc:
        raise ArgumentTypeError(f"{text!r} is no time: {exc}") from exc
    if when is None:
        raise ArgumentTypeError(f"{text!r} is no time; give 2026-11-21T03:00, 2026-11-21, or {relative}: 15m, 2h, 3d")
    if not settings.USE_TZ:
        return timezone.make_naive(when) if timezone.is_aware(when) else when
    return timezone.make_aware(when) if timezone.is_naive(when) else when


def _length(text: str) -> timedelta | None:
    if not (found := re.fullmatch(r"(\d+)([smhdw])", text)):
        return None
    try:
        return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError as exc:
        raise ArgumentTypeError(f"{text!r} is longer than time can be counted") from exc
