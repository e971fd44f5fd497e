"""What users need in their own tests: their tasks run in the test's own process, by a clock that the test moves.

Not imported by anything else of django_taskkit, and importing it does nothing: names are looked up when first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskkit.testing.engine import EndlessError
    from django_taskkit.testing.events import Ran, Retried, Sent, Waiting
    from django_taskkit.testing.inline import InlineWorker, NestedError, inline_worker
    from django_taskkit.testing.mixin import TaskkitTestMixin
    from django_taskkit.testing.results import NotReadyError
    from django_taskkit.testing.surviving import assert_survives

_PUBLIC = {
    "EndlessError": "engine",
    "InlineWorker": "inline",
    "NestedError": "inline",
    "NotReadyError": "results",
    "Ran": "events",
    "Retried": "events",
    "Sent": "events",
    "TaskkitTestMixin": "mixin",
    "Waiting": "events",
    "assert_survives": "surviving",
    "inline_worker": "inline",
}

__all__ = [
    "EndlessError",
    "InlineWorker",
    "NestedError",
    "NotReadyError",
    "Ran",
    "Retried",
    "Sent",
    "TaskkitTestMixin",
    "Waiting",
    "assert_survives",
    "inline_worker",
]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
