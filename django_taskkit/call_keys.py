"""Keys by which two calls of a task are told to be the same, readable as far as their length allows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final

from kombu.utils.json import JSONEncoder

from django_taskkit.stores import PREFIX

LONGEST: Final = 200
"""Characters of a key; memcached takes 250, of which Django's prefix and version need some."""

# kombu's, so that all may be in a key that Celery can send as JSON. Made once, since making it takes longer than using.
_encode = JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode


def key_text(kind: str, name: str, value: object) -> str:
    """Return the key for ``value``, readable as far as its length allows.

    No other name or value has the same, also where capital letters are taken for small ones.

    Args:
        kind: what the key is for, a word.
        name: of the task.

    Raises:
        TypeError, ValueError, RecursionError: the value can't be written as JSON.
    """
    # A JSON text ends with a bracket or a quotation mark, so that a digest can't be mistaken for one; and no JSON text
    # is the end of another after a colon, so that name and value can't be told apart in two ways.
    return key_with(key_prefix(kind, name), value)


def key_prefix(kind: str, name: str) -> str:
    """Return what all keys of ``name`` begin with, for :func:`key_with`."""
    return f"{PREFIX}:{kind}:{_escaped(name)}:"


def key_with(prefix: str, value: object) -> str:
    """Return the same as :func:`key_text`, and raise the same."""
    text = prefix + _json(value)
    if len(text) <= LONGEST and text == text.lower():
        return text
    # A database may take capital letters for small ones, MariaDB does.
    digest = sha256(text.encode()).hexdigest()
    return f"{text[: LONGEST - len(digest) - 1]}#{digest}"


def _json(value: object) -> str:
    text = _encode(value)
    return text.replace(" ", "\\u0020") if " " in text else text  # no blanks in memcached; JSON has them in strings


def _escaped(name: str) -> str:
    return _json(name)[1:-1]


class Binding:
    """Brings all ways to write a call into one: the values of the parameters by name, defaults included."""

    def __init__(self, signature: inspect.Signature) -> None:
        self.signature = signature
        parameters = signature.parameters.values()
        self.takes_more = next((one.name for one in parameters if one.kind is one.VAR_KEYWORD), None)
        """The name of ``**this``, if there is one."""
        # Most calls give keywords only; they need nothing of what makes inspect slow.
        plain = all(one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY) for one in parameters)
        self._defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
        self._names = frozenset(signature.parameters) if plain else None

    def __call__(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of a call's parameters by name; what ``**this`` takes is among them.

        Raises:
            TypeError: the call doesn't fit.
        """
        if not args and self._names is not None:
            values = {**self._defaults, **kwargs}
            if values.keys() == self._names:
                return values
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        values = dict(bound.arguments)
        return values if self.takes_more is None else {**values[self.takes_more], **values}
