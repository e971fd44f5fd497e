"""Values from a message as Python source, which makes the same value again and nothing else."""

from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

WIDTH = 100
"""Characters from which a list or mapping gets a line for each item."""


class NoLiteralError(ValueError):
    """A value has a type of which there is no plain source."""


class Literals:
    """Writes values as source with :meth:`of`, and notes in ``imports`` what that takes."""

    def __init__(self) -> None:
        self.imports: set[str] = set()

    def of(self, value: Any, indent: int = 0) -> str:
        """Return the source of ``value``, whose first line begins after ``indent`` spaces.

        Raises:
            NoLiteralError: it holds something that no message of JSON, YAML or MessagePack does as a rule.
        """
        if isinstance(value, dict):
            pairs = [(self.of(key), item) for key, item in value.items()]
            return self._many("{", [(f"{key}: ", item) for key, item in pairs], "}", indent)
        if isinstance(value, list):
            return self._many("[", [("", item) for item in value], "]", indent)
        if isinstance(value, tuple):
            return self._many("(", [("", item) for item in value], ",)" if len(value) == 1 else ")", indent)
        if isinstance(value, (set, frozenset)):
            return f"{type(value).__name__}({self.of(sorted(value, key=repr), indent)})"
        return self._one(value)

    def _many(self, start: str, items: list[tuple[str, Any]], end: str, indent: int) -> str:
        inner = indent + 4
        parts = [f"{before}{self.of(item, inner)}" for before, item in items]
        line = f"{start}{', '.join(parts)}{end}"
        if len(line) + indent <= WIDTH and "\n" not in line:
            return line
        lines = "".join(f"{' ' * inner}{part},\n" for part in parts)
        return f"{start}\n{lines}{' ' * indent}{end[-1]}"

    def _one(self, value: Any) -> str:
        # The very types: what a subclass, of a project's own, prints as its repr may be anything.
        kind = type(value)
        if value is None or kind in (bool, str, bytes):
            return repr(value)
        if kind is int:
            return hex(value) if abs(value) >= 10**4000 else repr(value)  # Python refuses to read longer ones
        if kind is float:
            return repr(value) if math.isfinite(value) else f'float("{value}")'
        if kind in (datetime, date, time):
            self.imports.add("import datetime")
            return f'datetime.{kind.__name__}.fromisoformat("{value.isoformat()}")'
        if kind is timedelta:
            self.imports.add("import datetime")
            return repr(value)
        if kind is Decimal:
            self.imports.add("from decimal import Decimal")
            return f'Decimal("{value}")'
        if kind is UUID:
            self.imports.add("from uuid import UUID")
            return f'UUID("{value}")'
        raise NoLiteralError(f"a value of type {kind.__module__}.{kind.__qualname__} can't be written as Python source")
