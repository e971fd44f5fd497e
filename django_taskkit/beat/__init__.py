"""One beat at a time, whichever scheduler it has, and a sign of its life. See docs/beat.md.

>>> from django_taskkit.beat import state
>>> state()
BeatState(app='shop', host='web1', pid=4711, ...)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskkit.beat.reading import BeatState, state

__all__ = ["BeatState", "state"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("django_taskkit.beat.reading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
