"""What a probe found, and how bad it is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Level(str, Enum):
    """How bad a finding is; ``unknown`` is no fault: something could not be looked at, and the text says why."""

    OK = "ok"
    UNKNOWN = "unknown"
    WARNING = "warning"
    ERROR = "error"


SEVERITY = {level: number for number, level in enumerate(Level)}


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact about the running system."""

    id: str
    """Stable, such as ``redis-eviction``: a heading in docs/doctor.md. Static checks have theirs, ``taskkit.E001``."""

    level: Level

    text: str
    """One or two sentences. May quote what a worker or a broker said: escape it before it is shown."""

    remedy: str = ""
    """What to do; empty if nothing is to be done."""

    @property
    def anchor(self) -> str:
        """Where the documentation explains it, as the path below the project's folder."""
        return f"docs/checks.md#{self.id}" if "." in self.id else f"docs/doctor.md#{self.id}"

    def as_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "level": self.level.value,
            "text": self.text,
            "remedy": self.remedy,
            "docs": self.anchor,
        }


def ok(id: str, text: str) -> Finding:
    return Finding(id=id, level=Level.OK, text=text)


def unknown(id: str, text: str, remedy: str = "") -> Finding:
    return Finding(id=id, level=Level.UNKNOWN, text=text, remedy=remedy)


def warning(id: str, text: str, remedy: str) -> Finding:
    return Finding(id=id, level=Level.WARNING, text=text, remedy=remedy)


def error(id: str, text: str, remedy: str) -> Finding:
    return Finding(id=id, level=Level.ERROR, text=text, remedy=remedy)
