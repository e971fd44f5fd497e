"""How a value is kept in the cache, beside what one has to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

MARK: Final = "taskkit-1"
"""What is kept under our keys begins with it; another version of the package may write another form."""


_SHAPES: Final = (tuple, list)
"""A cache that keeps JSON or MessagePack, as django-redis may, makes a list of a tuple."""


class Kept(NamedTuple):
    """A value, and when and by whom it was made. A plain tuple to the cache: reading it costs next to nothing."""

    value: Any
    stored_at: float
    """Seconds since the epoch."""
    task_id: str
    timeout: float | None
    """Seconds for which it is fresh, as the worker was told; None: for ever."""
    versions: Mapping[str, str]
    """Of its tags, when the run began."""


def pack(kept: Kept) -> tuple[Any, ...]:
    return (MARK, *kept)


def unpack(found: Any) -> Kept | None:
    """Return what was kept; None if it is nothing that we have written."""
    if found.__class__ in _SHAPES and len(found) == 6 and found[0] == MARK:
        return Kept._make(found[1:])
    return None
