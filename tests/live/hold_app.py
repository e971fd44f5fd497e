"""The worker of test_hold.py."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "chords_settings")

import harness
from celery import Celery

app = Celery("hold")
app.conf.update(harness.celery_settings())

import hold_tasks  # noqa: E402, F401
