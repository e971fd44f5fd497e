"""Type hints of a task against values as a message holds them."""

from __future__ import annotations

import collections.abc
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from enum import Enum
from typing import Any, Literal, Union
from uuid import UUID

_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Set)
_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)

_FROM_TEXT: dict[type, Callable[[str], Any]] = {
    datetime: lambda text: datetime.fromisoformat(zoned(text)),
    date: date.fromisoformat,
    time: time.fromisoformat,
    Decimal: Decimal,
    UUID: UUID,
}
"""What a sender may also have put into its message as text."""


def hints_of(task: Any) -> dict[str, Any]:
    """Return the type hints of a task's parameters, as far as they can be resolved here."""
    function = inspect.unwrap(task.run)
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that is imported for the type checker alone, or what a project's annotation raises
        found = getattr(function, "__annotations__", {})
        return {name: hint for name, hint in found.items() if not isinstance(hint, str)}


def zoned(text: str) -> str:
    """Return an ISO time in the form that Python 3.10 reads as well."""
    return f"{text[:-1]}+00:00" if text.endswith(("Z", "z")) else text


def without_none(hint: Any) -> tuple[Any, bool]:
    """Return ``hint`` without ``None``, and whether that was in it."""
    if hint is None or hint is types.NoneType:
        return types.NoneType, True
    if typing.get_origin(hint) not in (Union, types.UnionType):
        return hint, False
    kinds = typing.get_args(hint)
    others = tuple(kind for kind in kinds if kind is not types.NoneType)
    return (Union[others] if others else types.NoneType), len(others) < len(kinds)  # noqa: UP007 (made at runtime)


def described(hint: Any) -> str:
    """Return ``hint`` as it is written."""
    return hint.__name__ if isinstance(hint, type) and not typing.get_args(hint) else str(hint).replace("typing.", "")


def fits(value: Any, hint: Any) -> bool:
    """Say whether ``value`` may be what ``hint`` says; True where nothing can be told.

    What JSON has no kind for may be text, as senders commonly put it: an ISO date where a date is hinted. Classes of
    the project (models of pydantic, dataclasses) are not tried: that would run their code.
    """
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any or hint is inspect.Parameter.empty:
        return True
    if hint is None or hint is types.NoneType:
        return value is None
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, kind) for kind in inner)
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in inner)
    kind = origin or hint
    if kind in _SEQUENCES:
        return _fits_items(value, kind, inner)
    if kind in _MAPPINGS:
        return isinstance(value, Mapping) and (
            len(inner) != 2 or all(fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items())
        )
    return not isinstance(kind, type) or _is_a(value, kind)


def _fits_items(value: Any, kind: Any, inner: tuple[Any, ...]) -> bool:
    if not isinstance(value, (list, tuple, set, frozenset)):
        return kind is collections.abc.Sequence and isinstance(value, (str, bytes)) and not inner
    if not inner:
        return True
    if kind is tuple and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return all(fits(item, inner[0]) for item in value)


def _is_a(value: Any, kind: type) -> bool:
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in (str, bool, bytes):
        return isinstance(value, kind)
    if issubclass(kind, Enum):
        return any(member.value == value and type(member.value) is type(value) for member in kind)
    if kind is Decimal and isinstance(value, (int, float)):
        return not isinstance(value, bool)
    if kind in _FROM_TEXT:
        return isinstance(value, kind) or (isinstance(value, str) and _reads(value, _FROM_TEXT[kind]))
    return True


def _reads(text: str, read: Callable[[str], Any]) -> bool:
    try:
        read(text)
    except (ValueError, InvalidOperation):
        return False
    return True


def is_plain(value: Any, kind: type) -> bool:
    """Say whether ``value`` is of ``kind`` itself and can be typed into a field for that, without loss."""
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind is Decimal:
        return type(value) is Decimal and value.is_finite()
    if kind is str:
        return type(value) is str and not any(
            (character < " " and character not in "\n\t") or "\ud800" <= character <= "\udfff" for character in value
        )
    return type(value) is kind
