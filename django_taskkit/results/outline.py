"""What those outside are told of a task: how far it is, and nothing of what went on inside."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.utils.http import url_has_allowed_host_and_scheme

from django_taskkit.results.bars import status_of
from django_taskkit.results.state import TaskState


def outline(state: TaskState, *, result_url: str = "") -> dict[str, Any]:
    """Return ``state`` as JSON for those who wait: without value, without arguments, without a word of an error."""
    progress = state.progress
    return {
        "status": str(status_of(state)),
        "progress": None
        if progress is None
        else {
            "done": progress.done,
            "total": progress.total,
            "percent": progress.percent,
            "message": progress.message,
        },
        "attempt": state.attempt,
        "retry_after": state.retry_after,
        "result_url": result_url or None,
    }


def safe_target(request: HttpRequest, url: str) -> str:
    """Return ``url`` if it is one of this very host, else nothing: a page never sends anybody elsewhere."""
    own = url_has_allowed_host_and_scheme(url, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return url if own else ""
