"""The smallest worker app: what test_harness.py runs."""

from __future__ import annotations

import os

import harness
from celery import Celery

app = Celery("harness_app", fixups=[])
app.conf.update(harness.celery_settings())


@app.task(name="harness.add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="harness.pid")
def pid() -> int:
    return os.getpid()
