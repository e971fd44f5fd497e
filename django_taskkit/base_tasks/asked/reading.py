"""Look at objects of other people's classes without trusting them.

Every function returns None for what it can't read. Types are compared as they are: ``isinstance`` believes a mock that
says it is a number, and a mock turns itself into any number it is asked for.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

LONGEST_TEXT = 1024
"""Characters of a text that is worth reading; a list of rate limits is the longest."""

MOST_PAIRS = 200
"""Headers, or entries of metadata, that are looked at."""


def attribute(obj: object, name: str) -> Any:
    """Return an attribute of ``obj``; None if there is none, or if it can't be had."""
    try:
        return getattr(obj, name, None)
    except Exception:
        return None


def called(obj: object, name: str) -> Any:
    """Return what the method ``name`` of ``obj`` returns without arguments, None if it can't."""
    method = attribute(obj, name)
    if not callable(method):
        return None
    try:
        result = method()
    except Exception:
        return None
    if inspect.iscoroutine(result):  # nobody is going to wait for it, which Python would warn of
        result.close()
        return None
    return result


def item(obj: object, *keys: str) -> Any:
    """Return what is under ``keys`` in dictionaries within each other."""
    for key in keys:
        if not issubclass(type(obj), dict):
            return None
        try:
            obj = obj[key]  # type: ignore[index]
        except Exception:
            return None
    return obj


def number_of(value: object) -> float | None:
    """Return ``value`` if it is a number, 0 or more; a whole number too large for a float is the largest float."""
    kind = type(value)
    if not issubclass(kind, (int, float, Decimal)) or issubclass(kind, bool):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return sys.float_info.max if issubclass(kind, int) and int.__gt__(value, 0) else None  # type: ignore[operator]
    except Exception:
        return None
    return number if 0 <= number < math.inf else None


def text_of(value: object) -> str | None:
    """Return ``value`` if it is a text of reasonable length, also as bytes, without the space around it."""
    kind = type(value)
    if not issubclass(kind, (str, bytes)):
        return None
    try:
        if len(value) > LONGEST_TEXT:  # type: ignore[arg-type]
            return None
        text: Any = value.decode("latin-1") if issubclass(kind, bytes) else value  # type: ignore[attr-defined]
        return str.strip(text)
    except Exception:
        return None


def items_of(obj: object) -> Iterator[tuple[str, Any]]:
    """Yield names, in lower case, and values of a mapping of any kind, or of pairs."""
    items = called(obj, "items")
    return pairs_of(obj if items is None else items)


def pairs_of(pairs: Any) -> Iterator[tuple[str, Any]]:
    """Yield the first of each pair, in lower case, and the second."""
    try:
        for name, value in islice(pairs, MOST_PAIRS):
            text = text_of(name)
            if text is not None:
                yield text.lower(), value
    except Exception:
        return
