"""The project's ``LOGGING`` in Celery's processes."""

from __future__ import annotations

from typing import Any

from celery import signals


def keep_django_logging() -> None:
    """Have workers and beat log as Django's ``LOGGING`` says. Call it in the module of the Celery app.

    Celery replaces the handlers of the root logger when a worker or beat starts, or a process of its pool, and gives
    tasks' loggers one of their own. It leaves all of that alone where somebody listens to its signal ``setup_logging``
    (``celery.app.log.Logging.setup_logging_subsystem``); so does this. Levels are then those of ``LOGGING``:
    ``--loglevel`` and ``--logfile`` do nothing, and what tasks print stays as it is.
    """
    signals.setup_logging.connect(_leave_it, dispatch_uid="django_taskkit.observability.logs", weak=False)


def _leave_it(**kwargs: Any) -> None:
    """Django has read ``LOGGING`` by now: Celery sets Django up before it asks."""
