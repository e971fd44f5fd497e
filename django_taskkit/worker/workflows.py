"""Whom Celery leaves waiting for ever when a message ends before it runs."""

from __future__ import annotations

import logging
from typing import Any

from celery import states
from celery.app.task import Context
from celery.exceptions import TaskRevokedError

logger = logging.getLogger("django_taskkit")


def end_chain(request: Any, reason: str) -> None:
    """Give what follows a revoked or expired task its end, and a chord that waits for it its error; never raises.

    Celery ends the task alone: its chain stays pending, and so does the body of a chord that the chain is a member of.
    Error callbacks of the task are not called, as Celery calls none of a revoked task; those of the chord's body are.
    """
    followed: Context = request._context
    if not followed.chain:
        return
    # Its own part of a chord is told by Celery itself, right after this.
    without_chord = Context(vars(followed), chord=None)
    try:
        request.task.backend.mark_as_failure(
            request.id,
            TaskRevokedError(reason),
            request=without_chord,
            store_result=request.store_errors,
            call_errbacks=False,
            state=states.REVOKED,
        )
    except Exception as exc:
        logger.error("task %s[%s] was %s, and its chain could not be told: %r", request.name, request.id, reason, exc)
