"""The worker of test_spool.py: that of test_letters.py, and a task that fails when it is told to."""

from __future__ import annotations

import os
import time
from pathlib import Path

from celery import shared_task, signals
from letters_app import app, note

__all__ = ["app"]


@signals.worker_process_init.connect
def be_impatient(**kwargs: object) -> None:
    """Wait less long for a silent database; only in pool processes, where Django is set up by then."""
    from django_taskkit.dlq import rows

    rows.WRITE_TIMEOUT = float(os.environ["TASKKIT_TEST_WRITE_TIMEOUT"])


@shared_task(name="spool.fails_when_told")
def fails_when_told(folder: str) -> None:
    note(folder)
    while not Path(folder, "fail").exists():
        time.sleep(0.05)
    raise LookupError("told to")
