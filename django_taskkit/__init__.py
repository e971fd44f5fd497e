"""No Celery task is lost between ``transaction.commit()`` and done.

Add ``"django_taskkit"`` to ``INSTALLED_APPS`` and migrate; everything else is optional.
Importing this package does nothing: the names below are looked up when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "BaseTaskWithRetry": "django_taskkit.base_tasks",
    "DeadLetterTask": "django_taskkit.base_tasks",
    "discard": "django_taskkit.dlq",
    "requeue": "django_taskkit.dlq",
}

__all__ = ["BaseTaskWithRetry", "DeadLetterTask", "__version__", "discard", "requeue"]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
