"""The purge as a task, for beat."""

from __future__ import annotations

import logging
import time

from celery import shared_task

PURGE_TASK = "taskkit.purge"

LONGEST = 600.0
"""Seconds; what is left then is for the next time."""

logger = logging.getLogger("django_taskkit")


@shared_task(name=PURGE_TASK, ignore_result=True, dead_letter=False)  # type: ignore[call-overload,untyped-decorator]
def purge() -> int:
    """Delete rows that recovered or were discarded ``RETENTION_DAYS`` ago, and results of Django's tasks that finished
    then; return how many.

    Dead letters that wait are never deleted; too many of them, or too old ones, are warned of in the log.
    """
    from django.utils import timezone

    from django_taskkit.dlq import old_results, retention

    kept, letters, results = retention.retention(), 0, 0
    if kept is not None:
        before, end = timezone.now() - kept, time.monotonic() + LONGEST
        letters = retention.purge(before, seconds=LONGEST)
        if letters:
            logger.info("deleted %s dead letters that recovered or were discarded %s days ago", letters, kept.days)
        results = old_results.purge(before, seconds=max(0.0, end - time.monotonic()))
        if results:
            logger.info("deleted %s results of Django's tasks that finished %s days ago", results, kept.days)
    for warned in retention.warnings():
        logger.warning("%s %s", warned.text, warned.hint)
    return letters + results
