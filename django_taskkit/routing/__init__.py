"""Lanes: queues with the tasks that go there and the workers that read them, as plain Celery settings.

Importing this package loads nothing but this file; settings modules import it before Django is set up.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskkit.routing.lane import Lane
    from django_taskkit.routing.presets import by_app, by_priority, by_workload, retry_lane
    from django_taskkit.routing.settings import lanes

__all__ = ["Lane", "by_app", "by_priority", "by_workload", "lanes", "retry_lane"]

_HOMES = {
    "Lane": "lane",
    "by_app": "presets",
    "by_priority": "presets",
    "by_workload": "presets",
    "lanes": "settings",
    "retry_lane": "presets",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
