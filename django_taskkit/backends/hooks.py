"""Listen for deaths where the project has chosen our backend, also in processes that enqueue nothing: the relay."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.utils.module_loading import import_string

OURS = "django_taskkit.backends.backend"
OTHERS = ("django.tasks.", "django_tasks.")


def install() -> None:
    """Connect what a chosen backend needs; loads nothing where none is ours."""
    if any(_is_ours(entry) for entry in (getattr(settings, "TASKS", None) or {}).values()):
        from django_taskkit.backends import endings

        endings.install()


def _is_ours(entry: Any) -> bool:
    path = entry.get("BACKEND") if isinstance(entry, dict) else None
    if not isinstance(path, str) or path.startswith(OTHERS):
        return False
    try:
        found = import_string(path)
    except ImportError:
        return False  # whoever asks for it gets the error
    # By name: to ask with issubclass() would load ours for everybody else's.
    return any(kind.__module__ == OURS for kind in getattr(found, "__mro__", ()))
