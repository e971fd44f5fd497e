"""AMQP's encoding of a message's properties, several times as fast as py-amqp's, and byte by byte the same.

Half of the time that it takes to send a message goes into its headers: Celery's messages have some twenty of them.
"""

from __future__ import annotations

from struct import Struct, pack
from typing import Any

from amqp import Message

_TEXT = Struct(">cI").pack
_NAMES: dict[str, bytes] = {}
_NAMES_KEPT = 1_000


class UnusualValueError(Exception):
    """A type that is left to py-amqp."""


class QuickMessage(Message):  # type: ignore[misc,unused-ignore]
    """A message to be sent; whatever is unusual about it is left to py-amqp."""

    def _serialize_properties(self) -> bytes:
        try:
            return self._quickly()
        except UnusualValueError:
            serialized: bytes = super()._serialize_properties()  # type: ignore[misc,unused-ignore]
            return serialized

    def _quickly(self) -> bytes:
        flags, bit = 0, 1 << 15
        parts = [b""]
        for name, kind in self.PROPERTIES:
            value = self.properties.get(name)
            if value is not None:
                flags |= bit
                if kind == "s" and type(value) is str:
                    text = value.encode("utf-8", "surrogatepass")
                    parts.append(pack("B", len(text)) + text)
                elif kind == "o" and type(value) is int:
                    parts.append(pack("B", value))
                elif kind == "F":
                    parts.append(table(value))
                else:
                    raise UnusualValueError
            bit >>= 1
        parts[0] = pack(">H", flags)
        return b"".join(parts)


def table(values: dict[str, Any]) -> bytes:
    """Return a table with its length before it.

    Raises:
        UnusualValueError: something in it is left to py-amqp.
    """
    parts = [b""]
    for name, value in values.items():
        parts.append(_NAMES.get(name) or _name(name))
        if value is None:
            parts.append(b"V")
        elif type(value) is str:  # here as well, as most of them are: a call less
            text = value.encode("utf-8", "surrogatepass")
            parts += (_TEXT(b"S", len(text)), text)
        else:
            parts.append(_item(value))
    parts[0] = pack(">I", sum(map(len, parts)))
    return b"".join(parts)


def _name(name: Any) -> bytes:
    if type(name) is not str:
        raise UnusualValueError
    text = name.encode("utf-8", "surrogatepass")
    if len(text) > 255:
        raise UnusualValueError
    encoded = pack("B", len(text)) + text
    if len(_NAMES) < _NAMES_KEPT:
        _NAMES[name] = encoded
    return encoded


def _item(value: Any) -> bytes:
    kind = type(value)
    if value is None:
        return b"V"
    if kind is str:
        text = value.encode("utf-8", "surrogatepass")
        return pack(">cI", b"S", len(text)) + bytes(text)
    if kind is bool:
        return pack(">cB", b"t", value)
    if kind is int and -2147483647 <= value <= 2147483647:
        return pack(">ci", b"I", value)
    if kind is float:
        return pack(">cd", b"d", value)
    if kind is dict:
        return b"F" + table(value)
    if kind is list:
        items = b"".join(map(_item, value))
        return pack(">cI", b"A", len(items)) + items
    raise UnusualValueError
