"""The facts of one recovery: a requeued message that succeeded, and whose row is to say so."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FORMAT = 1
"""Which fields the text of a recovery has; another number is another release's."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A requeued message that succeeded, or ended by ``Ignore``."""

    task_id: str
    generation: int
    at: datetime
    note: str = ""

    def as_text(self) -> str:
        """Return everything as JSON in ASCII, for :func:`recovery_in`."""
        facts = {
            "task_id": self.task_id,
            "generation": self.generation,
            "at": self.at.isoformat(),
            "note": self.note,
        }
        return json.dumps({"recovered": FORMAT, **facts})


def recovery_in(text: str | bytes) -> Recovery | None:
    """Return the recovery that ``text`` tells of; None if it tells of something else.

    Raises:
        ValueError: it is a recovery of a release that wrote other fields, or no JSON.
    """
    try:
        facts: Any = json.loads(text)
    except RecursionError as exc:
        raise ValueError("it is nested too deep") from exc
    if not isinstance(facts, dict) or "recovered" not in facts:
        return None
    if facts["recovered"] != FORMAT:
        raise ValueError(f"its format is {facts['recovered']!r}, and this release reads {FORMAT}")
    try:
        return Recovery(
            task_id=str(facts["task_id"]),
            generation=int(facts["generation"]),
            at=datetime.fromisoformat(facts["at"]),
            note=str(facts["note"]),
        )
    except (LookupError, TypeError, OverflowError) as exc:
        raise ValueError(f"it is no recovery: {type(exc).__name__}: {exc}") from exc
