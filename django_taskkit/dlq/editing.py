"""Change the arguments of a dead letter; all else of its message stays as it was.

Only tasks that are named for it can be edited (``TASKKIT["EDITABLE"]``, or ``editable`` on the task), and only what
fits the task's signature and type hints is taken.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from typing import Any, NamedTuple

from celery import Celery
from django.db import router, transaction
from django.utils import timezone
from django.utils.translation import gettext as _
from kombu.utils import json as kombu_json

from django_taskkit import conf
from django_taskkit.dlq.calls import Arguments, is_call, is_deep, misfit, same, signature_of, spread, task_of
from django_taskkit.dlq.hints import described, fits, hints_of
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status, encode_mapping
from django_taskkit.dlq.privacy import HIDDEN, redacted
from django_taskkit.dlq.project import project_app
from django_taskkit.dlq.rewriting import UnwritableError, rewritten
from django_taskkit.dlq.text import bounded, shortened, storable
from django_taskkit.envelope import UndecodableError
from django_taskkit.exceptions import TaskkitError

STATUSES = (Status.DEAD, Status.HELD)
"""What can be edited; the message of another may be on its way, or has done its work."""

SHOWN_LENGTH = 500
"""Characters of one argument in the log."""

ABSENT: Any = object()
"""The value of an argument that a call leaves out."""


class EditRefusedError(TaskkitError):
    """A dead letter can't be edited, or not like this."""


class ChangedMeanwhileError(EditRefusedError):
    """Somebody else was faster."""


class Change(NamedTuple):
    """One argument, before and after; :data:`ABSENT` where it was left out."""

    name: str
    old: Any
    new: Any


@dataclass(frozen=True, kw_only=True)
class Call:
    """How the task of a dead letter was called, and what of that may be changed."""

    signature: inspect.Signature
    hints: Mapping[str, Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    allowed: frozenset[str] | bool
    """The names of the arguments that may be edited; True: all."""

    @property
    def arguments(self) -> Arguments:
        """The arguments by the names of the parameters, and those that fit none."""
        return spread(self.signature, self.args, self.kwargs)

    def may_edit(self, name: str) -> bool:
        return self.allowed if isinstance(self.allowed, bool) else name in self.allowed

    def complaint(self, name: str, value: Any) -> str:
        """Return why ``value`` is not for the parameter ``name``, or nothing."""
        parameter, hint = self.signature.parameters.get(name), self.hints.get(name, Any)
        if parameter is None or same(value, parameter.default):
            return ""
        values: Any = [value]
        if parameter.kind is parameter.VAR_POSITIONAL:
            values = value if isinstance(value, (list, tuple)) else None
        elif parameter.kind is parameter.VAR_KEYWORD:
            values = list(value.values()) if isinstance(value, Mapping) else None
        if values is None:
            kind = "list" if parameter.kind is parameter.VAR_POSITIONAL else "dict"
            return _("It has to be of type %(hint)s.") % {"hint": kind}
        return (
            ""
            if all(fits(item, hint) for item in values)
            else _("It has to be of type %(hint)s.") % {"hint": described(hint)}
        )

    def changes(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Change, ...]:
        """Return what is different in a call with ``args`` and ``kwargs``."""
        old, new = self.arguments.by_name(), spread(self.signature, args, kwargs).by_name()
        both = ((name, old.get(name, ABSENT), new.get(name, ABSENT)) for name in {**old, **new})
        return tuple(Change(*change) for change in both if not same(change[1], change[2]))


@dataclass(frozen=True, kw_only=True)
class Edit:
    """What :func:`edit` changed; nothing if everything was as given already."""

    dead_letter: DeadLetter
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        """Return it for a log: one argument a line, old and new, secrets hidden."""
        names = conf.current().redact
        return "\n".join(_line(change, names) for change in self.changes)


def digest(dead_letter: DeadLetter) -> str:
    """Return what is another text as soon as the row's message or number of requeues is another."""
    parts = (str(dead_letter.requeue_count), encode_mapping(dead_letter.headers))
    return sha256("\n".join(parts).encode() + bytes(dead_letter.body)).hexdigest()


def call_of(dead_letter: DeadLetter, app: Celery | None = None) -> Call:
    """Return how the task of ``dead_letter`` was called.

    Raises:
        EditRefusedError: it can't be edited; the message says why.
    """
    app = app or project_app()
    if dead_letter.status not in STATUSES:
        raise EditRefusedError(
            _("It is %(status)s, and only what is dead or held is edited.")
            % {"status": dead_letter.get_status_display()}
        )
    envelope = dead_letter.envelope
    if not (envelope.headers.get("id") and envelope.task_name):
        raise EditRefusedError(_("It has no task id or no task of its own, so no worker would take it for a task."))
    try:
        args, kwargs, embed = envelope.payload()
    except UndecodableError as exc:
        raise EditRefusedError(_("It can be requeued, but not edited: %s.") % exc) from exc
    if not is_call(args, kwargs, embed):
        raise EditRefusedError(_("It is not shaped like the message of a task."))
    if is_deep([args, kwargs]):
        raise EditRefusedError(_("It can be requeued, but not edited: %s.") % _("its arguments are nested too deep"))
    task = task_of(app, envelope.task_name)
    signature = None if task is None else signature_of(task)
    if signature is None:
        raise EditRefusedError(
            _("The task %s is not known here, so what it takes can't be checked.") % envelope.task_name
        )
    allowed = _allowed(task)
    if not allowed:
        text = _("Editing %(task)s is not allowed: add its name to TASKKIT['EDITABLE'], or editable=True to the task.")
        raise EditRefusedError(text % {"task": task.name})
    return Call(signature=signature, hints=hints_of(task), args=args, kwargs=kwargs, allowed=allowed)


def edit(
    dead_letter: DeadLetter,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    *,
    by: Any = None,
    note: str = "",
    app: Celery | None = None,
) -> Edit:
    """Give the message of ``dead_letter`` other arguments; it stays dead (or held) until it is requeued.

    Args:
        dead_letter: the row as it was when somebody decided this; nothing happens if it has changed since.
        args: all positional arguments.
        kwargs: all others.
        by: who does it, a user or a name; kept in the history.
        note: why; kept in the history, beside what was changed.
        app: the Celery app that knows the task; by default the current one.

    Task, id, queue, headers, and all that follows the task (links, chain, chord) stay as they are.

    Raises:
        EditRefusedError: the row or the task can't be edited, or the arguments don't fit.
        ChangedMeanwhileError: the row was edited, requeued or closed meanwhile.
        NoAppError: no ``app`` is given, and this process has none of the project's.
    """
    app = app or project_app()
    call = call_of(dead_letter, app)
    done = Edit(dead_letter=dead_letter, changes=call.changes(args, kwargs))
    if not done.changes:
        return done
    if why := misfit(call.signature, args, kwargs):
        raise EditRefusedError(_("The arguments don't fit the task: %(why)s.") % {"why": why})
    for change in done.changes:
        if not call.may_edit(change.name):
            raise EditRefusedError(_("The argument %s may not be edited.") % change.name)
        if change.new is not ABSENT and (why := call.complaint(change.name, change.new)):
            raise EditRefusedError(f"{change.name}: {why}")
    try:
        envelope = rewritten(dead_letter.envelope, args, kwargs, app)
    except UnwritableError as exc:
        raise EditRefusedError(str(exc)) from exc
    using = router.db_for_write(DeadLetter)
    with transaction.atomic(using=using):
        unchanged = DeadLetter.objects.using(using).filter(
            pk=dead_letter.pk,
            status=dead_letter.status,
            requeue_count=dead_letter.requeue_count,
            body=bytes(dead_letter.body),
        )
        if not unchanged.update(body=envelope.body, headers=envelope.headers):
            raise ChangedMeanwhileError(_("It was changed meanwhile; look at it once more."))
        DeadLetterEvent.objects.using(using).create(
            dead_letter=dead_letter,
            kind=DeadLetterEvent.Kind.EDITED,
            at=timezone.now(),
            by=bounded(by.get_username() if hasattr(by, "get_username") else by),
            generation=dead_letter.requeue_count,
            note=storable("\n".join(filter(None, [note, str(done)]))),
        )
    dead_letter.body, dead_letter.headers = envelope.body, dict(envelope.headers)
    return done


def _allowed(task: Any) -> frozenset[str] | bool:
    own = getattr(task, "editable", None)
    if own is None:
        return any(fnmatchcase(task.name, pattern) for pattern in conf.current().editable)
    if isinstance(own, bool):
        return own
    return frozenset([own] if isinstance(own, str) else own)


def _line(change: Change, names: Sequence[str]) -> str:
    old, new = (_shown(change.name, value, names) for value in (change.old, change.new))
    name = shortened(storable(change.name), SHOWN_LENGTH)  # of what fits nothing, the sender has chosen it
    return f"{name}: {old} → {new}" + (" (changed where it is hidden)" if old == new else "")


def _shown(name: str, value: Any, names: Sequence[str]) -> str:
    if value is ABSENT:
        return "(none)"
    shown = redacted({name: value}, names)[name]
    return HIDDEN if shown == HIDDEN else shortened(storable(_as_text(shown)), SHOWN_LENGTH)


def _as_text(value: Any) -> str:
    try:
        return str(kombu_json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return repr(value)
