"""The dead-letter queue: :func:`requeue` and :func:`discard`, and the table they work on."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["DiscardReport", "Refusal", "RequeueReport", "discard", "requeue"]


def __getattr__(name: str) -> Any:
    # Looked up late: the models import this package while Django's app registry is still loading.
    if name in __all__:
        return getattr(import_module("django_taskkit.dlq.transitions"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
