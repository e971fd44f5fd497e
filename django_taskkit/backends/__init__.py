"""Django's own tasks, run by Celery::

    TASKS = {"default": {"BACKEND": "django_taskkit.backends.CeleryBackend", "QUEUES": ["default"]}}

Importing this package loads nothing but this file: the table of results is there also where nobody uses it, and
``django.tasks`` is not in every Django.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskkit.backends.backend import CeleryBackend

__all__ = ["CeleryBackend"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from django_taskkit.backends.backend import CeleryBackend

        return CeleryBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
