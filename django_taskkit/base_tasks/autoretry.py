"""Keep Celery's own retry loop off tasks that have a better one.

Celery wraps the ``run`` of each task it registers. It reads the options for that even if the task has brought its
own loop, and dies of a ``retry_backoff`` that is a policy object or of an ``autoretry_for`` that is a class rather
than a tuple. The options of a decorator reach it by no other way, so its function is replaced where it is called.
"""

from __future__ import annotations

from typing import Any

from celery.app import base

celery_app: Any = base  # its annotations leave the function out


def leave_alone(marker: type) -> None:
    """Make Celery skip its autoretry for instances of ``marker``; doing it twice changes nothing."""
    original = celery_app.add_autoretry_behaviour
    if getattr(original, "leaves_alone", None) is marker:
        return

    def add_autoretry_behaviour(task: Any, **options: Any) -> None:
        if not isinstance(task, marker):
            original(task, **options)

    add_autoretry_behaviour.leaves_alone = marker  # type: ignore[attr-defined]
    celery_app.add_autoretry_behaviour = add_autoretry_behaviour
