"""Read arguments back from the text that Celery made of them for people.

Celery keeps the arguments of a call as a ``repr`` of its own, shortened where it is long. What can be told from it
without doubt is read; a guess would run a task with the wrong arguments. Nothing is evaluated but literals.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import Any

from celery.utils.saferepr import saferepr

SHORTENED = "its arguments were shortened where they were stored"
UNREADABLE = "its arguments hold objects that can't be read back from text"
AMBIGUOUS = "its arguments can't be told for sure from text, because of quotes, backslashes or bytes"

_CLOSING_BACKSLASH = re.compile(r"\\'(?=[,)\]}:])")
"""The end of a text that ends in a backslash, or a quote within another text: both look the same."""

_LEVELS = 50


class UnreadableArgumentsError(ValueError):
    """A text doesn't say for sure what the arguments were; the message is one of the sentences above."""


def arguments_in(text: str) -> Any:
    """Return the value of which :func:`celery.utils.saferepr.saferepr` made ``text``.

    Raises:
        UnreadableArgumentsError: that can't be told.
    """
    # Celery escapes quotes and nothing else: every other backslash, and every line end, is one of the value's own.
    literal = re.sub(r"\\(?!')", r"\\\\", text).replace("\n", r"\n").replace("\r", r"\r").replace("\x00", r"\x00")
    try:
        value = ast.literal_eval(literal)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as exc:
        # Only a shortened text has dots that no quotes surround, as far as can be told of one that can't be read.
        raise UnreadableArgumentsError(SHORTENED if _has_bare_dots(text) else UNREADABLE) from exc
    leaves = list(_leaves(value))
    if any(map(_is_shortened, leaves)):
        raise UnreadableArgumentsError(SHORTENED)
    # Celery writes bytes that are no UTF-8 as hexadecimal digits, which other bytes may be.
    if any(isinstance(leaf, bytes) for leaf in leaves) or _CLOSING_BACKSLASH.search(text):
        raise UnreadableArgumentsError(AMBIGUOUS)
    if text not in (saferepr(value, maxlevels=_LEVELS), _plain_repr(value, text)):
        raise UnreadableArgumentsError(AMBIGUOUS)
    return value


def _plain_repr(value: Any, text: str) -> str | None:
    """Return what ``repr`` makes of ``value``, which a project may have stored; with backslashes it is too alike."""
    return None if "\\" in text else repr(value)


def _has_bare_dots(text: str) -> bool:
    return bool(re.search(r"(^|[\[({,:]\s*)\.\.\.|\.\.\.'?[\])}]*$", text))


def _is_shortened(leaf: Any) -> bool:
    """Say whether something is left out; a text that ends in three dots of its own looks the same."""
    return leaf is Ellipsis or (isinstance(leaf, str) and leaf.endswith("..."))


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        value = [item for pair in value.items() for item in pair]
    if isinstance(value, (list, tuple, set)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
