"""Writing down what became of a message.

The life of a failing task, as far as this module sees it:

1. A task raises, its retries (if any) are used up, and the worker is about to store the failure.
2. :func:`record` writes one :class:`DeadLetter` row and a *died* entry in its history, in one transaction,
   before Celery stores anything and before a late acknowledgement. Celery reports some deaths twice and brokers
   deliver some messages twice: the second report of the same death finds the row and changes nothing.
3. An operator requeues the row. The message carries its *generation*, the number of requeues so far.
4. It succeeds: :func:`recover` marks the row *recovered*. Or it dies again: :func:`record` finds the row
   *requeued*, describes the new death in it, and adds to its history.

If the database takes no row, the death goes to the spool, which brings it into the table later; so does a recovery.
Nothing here raises into the worker, or keeps it waiting without a bound. What could not be kept at all is said in the
log, with its id.
"""

from __future__ import annotations

import logging

from django.utils import timezone

from django_taskkit.dlq import rows, spool
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.pause import Pause
from django_taskkit.dlq.recovery import Recovery

logger = logging.getLogger("django_taskkit")

database_pause = Pause(seconds=5)
"""A thousand tasks that fail in an outage don't each wait for the database."""

PAUSED = "it failed a moment ago"

FILES_AT_A_TIME = 20
"""Files of the spool that a worker brings in when its database works again, after a death of its own."""


def record(death: Death, *, late: bool = False) -> bool:
    """Write ``death`` down; True if it is in the table, or in the spool.

    ``late`` is for a death that was kept somewhere else meanwhile; see :func:`rows.write`.
    """
    try:
        if failure := _why_not_written(death, late=late):
            place = spool.keep(death)
    except Exception as exc:  # one of the two edges where anything is caught: the worker must live on
        logger.critical(
            "task %s[%s] died (%s) and its dead letter could be neither written nor spooled: %s: %s",
            death.task_name,
            death.envelope.task_id,
            death.reason,
            type(exc).__name__,
            exc,
        )
        return False
    if failure:
        logger.warning(
            "task %s[%s] died (%s); the database does not take its dead letter, which waits in %s: %s",
            death.task_name,
            death.envelope.task_id,
            death.reason,
            place,
            failure,
        )
    else:
        logger.info("task %s[%s] is a dead letter (%s)", death.task_name, death.envelope.task_id, death.reason)
    return True


def _why_not_written(death: Death, *, late: bool) -> str:
    if database_pause.on:
        return PAUSED
    try:
        rows.write(death, late=late)
    except rows.DatabaseDownError as exc:
        database_pause.begin()
        return str(exc)
    except rows.RowRefusedError as exc:
        return str(exc)
    _bring_in_files()
    return ""


def _bring_in_files() -> None:
    """Bring in what this machine spooled: its relay may be another machine."""
    try:
        spool.drain_files(FILES_AT_A_TIME)
    except Exception:
        logger.exception("the files of the spool could not be brought in")


def recover(task_id: str, generation: int, note: str = "") -> bool:
    """Mark the row of a requeued message that succeeded, or ended by ``Ignore``; True if there was one to mark.

    Where the database doesn't take it, it goes to the spool as a death does: the row is marked later.
    """
    recovery = Recovery(task_id=task_id, generation=generation, at=timezone.now(), note=note)
    try:
        if not database_pause.on:
            marked = rows.recover(recovery)
            _bring_in_files()
            return marked
        failure = PAUSED
    except rows.DatabaseDownError as exc:
        database_pause.begin()
        failure = str(exc)
    except Exception as exc:  # the task has succeeded; that must not turn into a failure here
        failure = f"{type(exc).__name__}: {exc}"
    try:
        place = spool.keep(recovery)
    except Exception as exc:
        logger.critical(
            "task %s succeeded after a requeue, which could be neither written down (%s) nor spooled: %s: %s",
            task_id,
            failure,
            type(exc).__name__,
            exc,
        )
        return False
    logger.warning(
        "task %s succeeded after a requeue; the database does not take that, and it waits in %s: %s",
        task_id,
        place,
        failure,
    )
    return False
