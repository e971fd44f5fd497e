"""Who wants to know that beat's loop turns; the health sign does."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django_taskkit.beat.lease import Standing

logger = logging.getLogger("django_taskkit")

Listener = Callable[[Standing, "float | None"], object]
"""Takes how things stand, and when the next run is due, in seconds since 1970."""

listeners: list[Listener] = []


def tell(standing: Standing, next_due_at: float | None) -> None:
    """Tell every listener of a turn; what one of them raises is logged."""
    for listener in listeners:
        try:
            listener(standing, next_due_at)
        except Exception:
            logger.exception("a listener to beat's turns failed")


ending: list[Callable[[], object]] = []
"""Who wants to know that a beat ends in good order."""


def tell_end() -> None:
    for listener in ending:
        try:
            listener()
        except Exception:
            logger.exception("a listener to beat's end failed")
