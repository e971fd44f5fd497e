"""The beats of test_beat.py; with a lease of a few seconds, or the tests would take minutes."""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "beat_settings")

import harness
from celery import Celery, shared_task
from celery.schedules import BaseSchedule, schedstate

from django_taskkit.beat import lease

if seconds := os.environ.get("TASKKIT_TEST_LEASE"):
    lease.LEASE, lease.POLL = float(seconds), 0.2
if os.environ.get("TASKKIT_TEST_OTHER_MACHINE"):
    lease.is_gone = lambda process: False

SLOT = 1.0
"""Seconds between two times at which an entry is due, whenever beat was started."""


class Slots(BaseSchedule):
    """Due at each full multiple of `SLOT`, as a crontab is at each full minute."""

    def remaining_estimate(self, last_run_at):
        slot = (int(last_run_at.timestamp() / SLOT) + 1) * SLOT
        return datetime.fromtimestamp(slot, tz=timezone.utc) - datetime.now(timezone.utc)

    def is_due(self, last_run_at):
        left = self.remaining_estimate(last_run_at).total_seconds()
        if left > 0:
            return schedstate(False, left)
        return schedstate(True, self.remaining_estimate(datetime.now(timezone.utc)).total_seconds())

    def __eq__(self, other):
        return isinstance(other, Slots)

    def __reduce__(self):
        return Slots, ()


app = Celery("beat")
app.conf.update(harness.celery_settings())
app.conf.beat_max_loop_interval = 1
if not os.environ.get("TASKKIT_TEST_INTERVALS"):
    app.conf.beat_schedule = {name: {"task": "beat.note", "schedule": Slots(), "args": [name]} for name in ("a", "b")}
else:
    app.conf.beat_schedule = {
        name: {"task": "beat.note", "schedule": timedelta(seconds=1), "args": [name]} for name in ("a", "b")
    }


@shared_task(name="beat.note")
def note(entry: str) -> None:
    pass
