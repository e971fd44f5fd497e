"""Results as a page can use them: cached, made once for all who ask at the same time, with progress."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PUBLIC = {
    "Progress": "django_taskkit.progress",
    "ResultCache": "django_taskkit.results.cache",
    "Status": "django_taskkit.results.state",
    "TaskEventsView": "django_taskkit.results.events",
    "TaskFailure": "django_taskkit.results.state",
    "TaskState": "django_taskkit.results.state",
    "TaskStatusView": "django_taskkit.results.views",
    "atask_view": "django_taskkit.results.views",
    "invalidate_tag": "django_taskkit.results.tags",
    "make_token": "django_taskkit.results.tokens",
    "progress_of": "django_taskkit.progress",
    "result_cache": "django_taskkit.results.decorator",
    "set_progress": "django_taskkit.progress",
    "state_response": "django_taskkit.results.responses",
    "status_response": "django_taskkit.results.status",
    "task_view": "django_taskkit.results.views",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
