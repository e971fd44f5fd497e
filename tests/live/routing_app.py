"""The worker of test_lanes.py and test_lane_order.py: a Django project with lanes; tasks write down when they began."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task
from django.conf import settings

given = harness.celery_settings()
settings.TASKKIT_LANES = given.pop("TASKKIT_LANES", {})

app = Celery("lanes")
app.conf.update(given)


def note(folder: str, **what: object) -> None:
    with open(Path(folder, "ledger.jsonl"), "a") as ledger:
        ledger.write(json.dumps({"at": time.time(), **what}) + "\n")


def noted(folder: str | Path, **what: object) -> list[dict[str, object]]:
    """What was written down, in its order."""
    ledger = Path(folder, "ledger.jsonl")
    lines = [json.loads(line) for line in ledger.read_text().splitlines()] if ledger.exists() else []
    return [line for line in lines if line.items() >= what.items()]


def work(self, folder: str, name: str, seconds: float = 0, sent_at: float = 0) -> str:
    delivery = self.request.delivery_info
    note(folder, name=name, waited=time.time() - sent_at, priority=delivery.get("priority"))
    time.sleep(seconds)
    return name


for lane in ("critical", "high", "ordinary", "low", "slow", "fast", "both"):
    shared_task(work, bind=True, name=f"{lane}.work")


@shared_task(name="slow.kill_worker", acks_late=True)
def kill_worker(folder: str) -> None:
    """kill -9 of the worker's whole process group, as a container that is out of memory ends."""
    note(folder, name="killed")
    assert harness.celery_settings(), "not in a worker: whose group would that be?"
    os.killpg(os.getpgrp(), signal.SIGKILL)
