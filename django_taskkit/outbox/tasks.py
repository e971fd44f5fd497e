"""The relay as a task, for projects that run beat and no process more."""

from __future__ import annotations

import socket
import time

from celery import shared_task

from django_taskkit.outbox.publishing import RELAY_TASK

LONGEST = 50.0
"""Seconds; beat sends the next one after a minute."""


@shared_task(name=RELAY_TASK, ignore_result=True, dead_letter=False)  # type: ignore[call-overload,untyped-decorator]
def relay() -> int:
    """Send what waits in the outbox, until nothing is left or 50 seconds have passed; return how many it sent."""
    from django_taskkit.dlq.project import project_app
    from django_taskkit.outbox.relay import Relay

    sent, end = 0, time.monotonic() + LONGEST
    worker = Relay(project_app(), name=f"task@{socket.gethostname()}")
    while True:
        done = worker.run_once()
        sent += done.published
        if time.monotonic() >= end or not (done.did_something or done.redriving):
            worker.release()
            return sent
        if not done.did_something:
            time.sleep(0.5)  # a paced redrive has its next message in a moment
