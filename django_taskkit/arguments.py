"""Arguments of tasks that should not travel in a message: what they are, where they are, what to pass instead.

Nothing is fetched to tell: no queryset is run, no lazy object evaluated, no ``repr`` called. Objects are known by their
``type()`` alone, since ``isinstance`` asks a lazy object for its class, and that fetches it.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from itertools import chain
from typing import Any

from django.db.models import Model
from django.utils.functional import LazyObject, Promise, empty
from kombu import serialization
from kombu.utils import json as kombu_json

from django_taskkit.argument_kinds import KINDS, Kind

PLAIN = frozenset({str, int, float, bool, type(None), bytes, datetime, date, time, timedelta, Decimal, uuid.UUID})
"""Types of which an argument needs no second look."""

OWN_SERIALIZERS = ("kombu", "celery", "yaml")
"""Packages whose serializers can't do more than is known here; a project with its own has its own rules."""

DEEPEST = 20
"""Steps of a way that are told; of a longer one, the last."""

Step = tuple[Any, str]
"""Where a value is in the one around it, as a link to that one's own step and what leads on: ``[3]``, ``['order']``."""


@dataclass(frozen=True)
class Found:
    """One value that should not travel."""

    what: str
    """A noun phrase: ``an instance of the model shop.Order``."""
    where: str
    """``argument 1``, ``order``, ``items[3]['order']``."""
    remedy: str


def may_be_unsafe(*values: Any) -> bool:
    """Say whether :func:`unsafe` has to look at the values; for plain data, which nearly all is, it has not.

    Goes level by level, so that a list of many dicts is one pass over all of their values and no call for each.
    """
    level: list[Any] = [value for value in values if value is not None and not _is_plain(value)]
    if not level:
        return False
    level = [level]
    seen: set[int] = set()
    while level:
        types = set(map(type, level))
        if PLAIN.issuperset(map(type, _children(level, types))):
            return False
        if not seen.isdisjoint(map(id, level)) or len(level) > 1:
            level = [item for key, item in {id(item): item for item in level}.items() if key not in seen]
        seen.update(map(id, level))
        level = [child for child in _children(level, types) if type(child) not in PLAIN]
        kinds: dict[type, Kind | str | None] = {cls: _kind(cls) for cls in set(map(type, level))}
        if not {None, _CONTAINER}.issuperset(kinds.values()):
            return True
        level = [child for child in level if kinds[type(child)] is _CONTAINER]
    return False


def _is_plain(value: Any, depth: int = 2) -> bool:
    """Say so of what needs no further look; the shortest way for the arguments of most calls, which are small."""
    cls = type(value)
    if cls is dict:
        children = value.values()
        if not PLAIN.issuperset(map(type, value)):
            return False
    elif cls is tuple or cls is list:
        children = value
    else:
        return cls in PLAIN
    if PLAIN.issuperset(map(type, children)):
        return True
    return depth > 0 and len(children) <= 20 and all(_is_plain(child, depth - 1) for child in children)


def unsafe(
    args: Iterable[Any], kwargs: dict[str, Any], serializer: str | None, names: tuple[str, ...] = ()
) -> Found | None:
    """Return the first argument, or part of one, that should not travel; None if there is none.

    Args:
        serializer: the name by which the message is encoded. What a project has taught kombu's JSON to encode passes,
            and so does all that goes through a serializer of its own.
        names: the parameters of the task, for its positional arguments.
    """
    if _is_of_the_project(serializer):
        return None
    walk: deque[tuple[Any, Step | None, str, int | None]] = deque()
    for index, value in enumerate(args):
        walk.append((value, None, names[index] if index < len(names) else "", index + 1))
    walk.extend((value, None, str(name), None) for name, value in kwargs.items())
    seen: set[int] = set()
    while walk:
        value, step, root, number = walk.popleft()
        cls: Any = type(value)
        kind = _kind(cls)
        if kind is None:
            continue
        if isinstance(kind, Kind):
            if not _is_encodable(value, kind, serializer):
                return _found(value, kind, step, root, number)
            continue
        if id(value) in seen or (kind is _DATACLASS and serializer == "json"):  # JSON takes it encoded, or not at all
            continue
        seen.add(id(value))
        walk.extend((child, (step, way), root, number) for way, child in _ways(value))
    return None


_CONTAINER, _DATACLASS = "container", "dataclass"
_SEQUENCES = (list, tuple, set, frozenset, deque)


@lru_cache(maxsize=4096)
def _kind(cls: type) -> Kind | str | None:
    if cls in PLAIN:
        return None
    if issubclass(cls, (dict, *_SEQUENCES)):
        return _CONTAINER
    names = {f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__}
    for kind in KINDS:
        if issubclass(cls, kind.classes) or names.intersection(kind.names):
            return kind
    return _DATACLASS if dataclasses.is_dataclass(cls) and not _pickles_by_itself(cls) else None


def _pickles_by_itself(cls: type) -> bool:
    """Say whether a class has its own way to be pickled, which may leave out what should not travel."""
    if any(getattr(cls, name) is not getattr(object, name) for name in ("__reduce__", "__reduce_ex__")):
        return True
    state = getattr(cls, "__getstate__", None)
    # ``dataclass`` itself makes one for slots.
    return state not in (None, getattr(object, "__getstate__", None)) and state.__module__ != "dataclasses"


def _children(containers: list[Any], types: set[type]) -> Iterator[Any]:
    """What is in the containers, keys too, without calling what a subclass has made of that."""
    if types <= {list, tuple}:
        return chain.from_iterable(containers)
    if types == {dict}:
        return chain(chain.from_iterable(containers), chain.from_iterable(map(dict.values, containers)))
    return chain.from_iterable(map(_parts, containers))


def _parts(container: Any) -> Iterator[Any]:
    cls = type(container)
    if issubclass(cls, dict):
        return chain(dict.keys(container), dict.values(container))
    return iter(_base(cls).__iter__(container))


def _base(cls: type) -> Any:
    return next(base for base in _SEQUENCES if issubclass(cls, base))


def _ways(container: Any) -> Iterator[tuple[str, Any]]:
    cls = type(container)
    if issubclass(cls, dict):
        for key, value in dict.items(container):
            yield f"[{_key(key)}]", value
            if type(key) not in PLAIN:
                yield " (a key)", key
    elif issubclass(cls, (list, tuple, deque)):
        for index, value in enumerate(_base(cls).__iter__(container)):
            yield f"[{index}]", value
    elif issubclass(cls, (set, frozenset)):
        for value in _base(cls).__iter__(container):
            yield " (in the set)", value
    else:
        for field in dataclasses.fields(cls):
            try:
                yield f".{field.name}", object.__getattribute__(container, field.name)
            except AttributeError:
                continue


def _key(key: Any) -> str:
    """A key as one would write it; what is long or no plain text or number, by its type alone."""
    if type(key) in (str, int) and len(text := repr(key)) <= 60:
        return text
    return f"<{type(key).__name__}>"


def _is_of_the_project(serializer: str | None) -> bool:
    registry: Any = serialization.registry  # type: ignore[attr-defined]  # its annotations leave it out
    codec = registry._encoders.get(serializer)
    return codec is not None and str(getattr(codec.encoder, "__module__", "")).partition(".")[0] not in OWN_SERIALIZERS


def _is_encodable(value: Any, kind: Kind, serializer: str | None) -> bool:
    """Say whether kombu's JSON has been taught to encode this; lazy texts it knows by itself."""
    if serializer != "json":
        return False
    cls = type(value)
    if issubclass(cls, Promise):
        return True
    known = tuple(getattr(kombu_json, "_encoders", ()))
    if issubclass(cls, LazyObject):
        cls = type(wrapped(value))
        if cls is type(empty):  # it could be anything that a project fetches so
            return any(issubclass(encodable, Model) for encodable in known)
    return hasattr(cls, "__json__") or issubclass(cls, known)


def wrapped(lazy: Any) -> Any:
    """Return what a lazy object stands for if it has been evaluated, else Django's ``empty``."""
    return object.__getattribute__(lazy, "__dict__").get("_wrapped", empty)


def _found(value: Any, kind: Kind, step: Step | None, root: str, number: int | None) -> Found:
    parts: list[str] = []
    while step is not None:
        step, part = step
        parts.append(part)
    way = "".join(reversed(parts)) if len(parts) <= DEEPEST else "".join(["[...]", *reversed(parts[:DEEPEST])])
    name = root + way if root else ""
    if number is None:
        where = name
    elif name:
        where = f"argument {number} ({name})"
    else:
        where = f"argument {number}" + (f", at {way}" if way else "")
    subject = wrapped(value) if issubclass(type(value), LazyObject) else value
    spoken = name if name and not way.endswith(")") else ""
    return Found(kind.what(value), where, kind.remedy(value, spoken or type(subject).__name__.lower()))
