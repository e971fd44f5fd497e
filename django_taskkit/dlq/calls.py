"""How a task of this project is called: its parameters, and whether arguments fit them. Nothing here calls it."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.utils import json as kombu_json

logger = logging.getLogger("django_taskkit")

DEEPEST = 100
"""Levels of lists and mappings in an argument that can be edited."""


def task_of(app: Celery, name: str) -> Any:
    """Return the task called ``name``, or None if this process doesn't know it.

    A web process has mostly not imported the task modules; a worker does this at its start, and so does this when
    ``name`` is not there. A module that can't be imported is named in the log.
    """
    if name not in app.tasks:
        try:
            app.loader.import_default_modules()
        except Exception as exc:  # whatever a project's module raises
            logger.warning("task modules could not be imported: %r", exc)
    return app.tasks.get(name)


def signature_of(task: Any) -> inspect.Signature | None:
    """Return the parameters of ``task``, without the task itself where it is bound; None if Python can't tell."""
    try:
        return inspect.signature(task.run)
    except (TypeError, ValueError):
        return None


def misfit(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return why the arguments don't fit, in Python's words; empty if they do."""
    try:
        signature.bind(*args, **kwargs)
    except TypeError as exc:
        return str(exc)
    return ""


def is_call(args: Any, kwargs: Any, embed: Any) -> bool:
    """Say whether the three parts of a body are of the kinds that a worker takes."""
    named = isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)
    return isinstance(args, (list, tuple)) and named and isinstance(embed, (Mapping, type(None)))


def is_deep(value: Any, levels: int = DEEPEST) -> bool:
    """Say whether ``value`` is nested deeper than so many ``levels``; what goes through it would end in an error."""
    if not isinstance(value, (Mapping, list, tuple)):
        return False
    items = value.values() if isinstance(value, Mapping) else value
    return levels == 0 or any(is_deep(item, levels - 1) for item in items)


def same(one: Any, other: Any) -> bool:
    """Say whether two values are the same in a message: ``1``, ``1.0`` and ``True`` are not."""
    try:
        return bool(kombu_json.dumps(one) == kombu_json.dumps(other))
    except (TypeError, ValueError, RecursionError):
        return type(one) is type(other) and bool(one == other)


@dataclass(frozen=True)
class Arguments:
    """The arguments of a call by the names of the parameters that take them."""

    values: Mapping[str, Any]
    surplus: Mapping[str, Any]
    """What no parameter takes: by name, or by number, the first being 1."""

    def by_name(self) -> dict[str, Any]:
        """Return all of them; one that is given twice has a star behind its name the second time."""
        return {**self.values, **{f"{name}*" if name in self.values else name: v for name, v in self.surplus.items()}}


def spread(signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
    """Return which parameter takes which argument, also where not all of them fit."""
    values: dict[str, Any] = {}
    taken, named = 0, dict(kwargs)
    rest = None
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            if args[taken:]:
                values[name] = list(args[taken:])
            taken = len(args)
        elif parameter.kind is parameter.VAR_KEYWORD:
            rest = name
        elif parameter.kind is not parameter.KEYWORD_ONLY and taken < len(args):
            values[name] = args[taken]
            taken += 1
        elif parameter.kind is not parameter.POSITIONAL_ONLY and name in named:
            values[name] = named.pop(name)
    twice = {name: named.pop(name) for name in list(named) if name in values and _by_keyword(signature, name)}
    if rest and named:
        values[rest], named = named, {}
    surplus = {str(number): value for number, value in enumerate(args[taken:], start=taken + 1)}
    return Arguments(values, {**surplus, **twice, **named})


def gathered(
    signature: inspect.Signature, values: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """Return the call in which the parameters take ``values``, as much like the call with ``args`` as it can be.

    What was given by position stays so; what is new is given by name where it may be.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    kinds = {parameter.kind: name for name, parameter in signature.parameters.items()}
    more = list(values.get(kinds.get(inspect.Parameter.VAR_POSITIONAL, ""), ()))
    by_position = True
    for number, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind is parameter.VAR_KEYWORD:
            named.update(values.get(name, {}))
        elif parameter.kind is parameter.VAR_POSITIONAL:
            positional += more
        elif name not in values and more and parameter.kind is not parameter.KEYWORD_ONLY:
            positional.append(parameter.default)  # those behind it can be reached in no other way
        elif name not in values:
            by_position = False
        elif parameter.kind is parameter.POSITIONAL_ONLY or (
            parameter.kind is parameter.POSITIONAL_OR_KEYWORD and by_position and (number < len(args) or more)
        ):
            positional.append(values[name])
        else:
            by_position = False
            named[name] = values[name]
    return positional, {name: named[name] for name in [*kwargs, *named] if name in named}


def _by_keyword(signature: inspect.Signature, name: str) -> bool:
    kind = signature.parameters[name].kind
    return kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
