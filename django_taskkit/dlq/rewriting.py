"""A message with other arguments, and all else of it as it was."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from celery import Celery
from celery.utils.saferepr import saferepr
from django.utils.translation import gettext as _
from kombu.serialization import dumps, registry  # type: ignore[attr-defined]
from kombu.utils import json as kombu_json

from django_taskkit.dlq.calls import same
from django_taskkit.envelope import RESULT_HEADER, Envelope
from django_taskkit.exceptions import TaskkitError

JSON = "application/json"

EDITED = "(edited)"
"""In the place of a text by which the sender described the arguments, and which is no longer true."""


class UnwritableError(TaskkitError):
    """The arguments can't be written in the message's own format."""


def rewritten(envelope: Envelope, args: Sequence[Any], kwargs: Mapping[str, Any], app: Celery) -> Envelope:
    """Return ``envelope`` with other arguments, in its own format, and with headers that describe them.

    In JSON, what is not edited is written as it was read, and not taken to Python's kinds and back.

    Raises:
        UnwritableError: a value is of a kind that the format has not.
        UndecodableError: the body can't be read.
    """
    old_args, old_kwargs, embed = envelope.payload()
    if envelope.content_type == JSON:
        body = _as_json(envelope, (old_args, old_kwargs), (args, kwargs))
    else:
        body = _as_serialized(envelope, [list(args), dict(kwargs), embed])
    headers = dict(envelope.headers)
    shown = {
        "argsrepr": (old_args, args, app.amqp.argsrepr_maxsize),
        "kwargsrepr": (old_kwargs, kwargs, app.amqp.kwargsrepr_maxsize),
    }
    for name, (old, new, length) in shown.items():
        if isinstance(headers.get(name), str) and not same(old, new):
            headers[name] = _described(app, headers[name], old, new, length)
    if not (same(old_args, args) and same(old_kwargs, kwargs)):
        headers.pop(RESULT_HEADER, None)  # what it returns now is not what is waited for under the old arguments
    changed = replace(envelope, body=body, headers=headers)
    found = changed.payload()
    if not all(map(same, found, (args, kwargs, embed))):
        raise UnwritableError(_("These arguments would not be read as they were given."))
    return changed


def _as_json(envelope: Envelope, old: tuple[Any, Any], new: tuple[Any, Any]) -> bytes:
    raw = json.loads(envelope.body)
    args = [
        raw[0][number] if number < len(old[0]) and same(value, old[0][number]) else _plain(value)
        for number, value in enumerate(new[0])
    ]
    kwargs = {
        name: raw[1][name] if name in old[1] and same(value, old[1][name]) else _plain(value)
        for name, value in new[1].items()
    }
    return json.dumps([args, kwargs, *raw[2:]]).encode()


def _plain(value: Any) -> Any:
    """Return ``value`` as JSON has it, with kombu's marks for what JSON has no kind for."""
    try:
        return json.loads(kombu_json.dumps(value))
    except (TypeError, ValueError, RecursionError) as exc:
        raise UnwritableError(_("The message's format has no place for a value: %s.") % exc) from exc


def _as_serialized(envelope: Envelope, body: Any) -> bytes:
    try:
        written = dumps(body, serializer=registry.type_to_name[envelope.content_type])[2]
    except Exception as exc:  # each format has errors of its own
        raise UnwritableError(_("The message's format has no place for a value: %s.") % exc) from exc
    return written.encode() if isinstance(written, str) else bytes(written)


def _described(app: Celery, text: str, old: Any, new: Any, length: int) -> str:
    levels = getattr(app.conf, "task_repr_maxlevels", None)
    options = {} if levels is None else {"maxlevels": levels}
    # Celery's own description may be made again. One that the sender gave may be there to hide what is in them.
    kinds = (tuple, list) if isinstance(old, (list, tuple)) else (dict,)
    for kind in kinds:
        if text == saferepr(kind(old), length, **options):
            return str(saferepr(kind(new), length, **options))
    return EDITED
