"""The worker of test_health.py."""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "health_settings")

import harness
from celery import Celery, shared_task

app = Celery("health")
app.conf.update(harness.celery_settings())


@shared_task(name="health.wait_for")
def wait_for(path: str) -> None:
    """Run until the file is there."""
    while not Path(path).exists():
        time.sleep(0.05)
