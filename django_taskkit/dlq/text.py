"""Turn whatever a failing task hands us into text that every database stores and every page shows."""

from __future__ import annotations

import hashlib
import traceback
from typing import Any


def storable(text: str) -> str:
    """Return ``text`` without what a database refuses: NUL and lone surrogates become visible escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")


def shortened(text: str, limit: int) -> str:
    """Return the first two thirds and the end of ``text``, and say how much is missing in between."""
    if len(text) <= limit:
        return text
    note = f"\n[... {len(text) - limit} characters left out by django-taskkit ...]\n"
    head = limit * 2 // 3
    return text[:head] + note + text[-(limit - head) :]


def bounded(value: Any, limit: int = 255) -> str:
    """Return ``value`` as text that fits a column, distinct where the value is: a long one ends in its digest."""
    text = storable("" if value is None else str(value))
    if len(text) <= limit:
        return text
    return f"{text[: limit - 17]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def message_of(exc: BaseException, limit: int) -> str:
    """Return the message of ``exc``, also when its ``__str__`` raises."""
    try:
        text = str(exc)
    except Exception as broken:
        text = f"[the message can't be shown: {type(exc).__name__}.__str__ raised {type(broken).__name__}]"
    return shortened(storable(text), limit)


def class_of(exc: BaseException) -> str:
    """Return the dotted path of the class of ``exc``."""
    kind = type(exc)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return bounded(f"{module}{kind.__qualname__}")


def traceback_of(exc: BaseException, limit: int) -> str:
    """Return the traceback of ``exc`` as Python prints it, also when parts of it can't be formatted."""
    try:
        lines = traceback.format_exception(type(exc), exc, exc.__traceback__)
    except Exception:
        lines = [*traceback.format_tb(exc.__traceback__), f"{class_of(exc)}: {message_of(exc, limit)}\n"]
    return shortened(storable("".join(lines)), limit)
