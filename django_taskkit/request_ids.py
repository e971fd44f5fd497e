"""The id of the web request that started what runs here, handed on through every task."""

from __future__ import annotations

from contextvars import ContextVar

from celery.app import app_or_default

from django_taskkit.envelope import REQUEST_ID_HEADER

of_request: ContextVar[str] = ContextVar("taskkit_request_id", default="")
"""Set by the middleware for one web request; empty elsewhere."""


def current_request_id() -> str:
    """Return the id of the web request that is served here, or that started the task which runs here; empty if none."""
    if request_id := of_request.get():
        return request_id
    task = app_or_default().current_worker_task
    return str(getattr(task.request, REQUEST_ID_HEADER, None) or "") if task is not None else ""
