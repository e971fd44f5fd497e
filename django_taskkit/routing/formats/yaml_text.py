"""A little YAML, written by hand: mappings, lists, strings, numbers, comments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/_.-]*")
# What YAML 1.1 reads as something else than text.
_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"}


class Commented:
    """A value with comments above it."""

    def __init__(self, value: Any, *comments: str) -> None:
        self.value = value
        self.comments = comments


def text(value: Any) -> str:
    """Return ``value`` as a YAML document; a value that is None is left out, its comments stay."""
    return "\n".join(_lines(value, "")) + "\n"


def _lines(value: Any, indent: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _entry(f"{scalar(key)}:", item, indent)
    else:
        for item in value:
            yield from _item(item, indent)


def _entry(key: str, item: Any, indent: str) -> Iterator[str]:
    if isinstance(item, Commented):
        yield from (f"{indent}# {comment}" for comment in item.comments)
        item = item.value
    if item is None:
        return
    if _nested(item):
        yield f"{indent}{key}"
        yield from _lines(item, f"{indent}  ")
    else:
        yield f"{indent}{key} {_flow(item)}"


def _item(item: Any, indent: str) -> Iterator[str]:
    if not _nested(item):
        yield f"{indent}- {_flow(item)}"
        return
    first = True
    for line in _lines(item, f"{indent}  "):
        yield f"{indent}- {line[len(indent) + 2 :]}" if first else line
        first = False


def _nested(item: Any) -> bool:
    """Mappings, and lists of something else than plain values, take lines of their own."""
    if isinstance(item, Mapping):
        return bool(item)
    return not isinstance(item, str) and isinstance(item, Sequence) and any(isinstance(one, Mapping) for one in item)


def _flow(item: Any) -> str:
    if isinstance(item, Sequence) and not isinstance(item, str):
        return f"[{', '.join(json.dumps(one, ensure_ascii=False) for one in item)}]"
    return "{}" if item == {} else scalar(item)


def scalar(value: Any) -> str:
    """Return a string, a number or a truth value as YAML; text that might be read as something else is quoted."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
        return value if plain else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
