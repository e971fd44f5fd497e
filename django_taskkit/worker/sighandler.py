"""What a signal handler must not do itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Thread

from celery.utils import log

logger = logging.getLogger("django_taskkit")

PATIENCE = 30
"""Seconds that a shutdown waits: longer than a death takes to reach the table, or the spool if that fails."""


def apart(action: Callable[[], object]) -> None:
    """Do ``action``; from within one of Celery's signal handlers, in a thread of its own.

    The handler runs in the middle of whatever the main thread was doing, perhaps with the database connection that
    ``action`` needs, and then each would wait for the other.
    """
    if not getattr(log, "_in_sighandler", False):
        action()
        return
    thread = Thread(target=action, name="taskkit-shutdown", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if thread.is_alive():
        logger.critical("a death could not be recorded within %d s of the shutdown", PATIENCE)
