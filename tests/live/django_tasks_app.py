"""The worker of test_django_tasks.py."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_tasks_settings")

import django
import harness
from celery import Celery

app = Celery("django_tasks")
app.conf.update(harness.celery_settings(), task_queue_max_priority=9)
django.setup()

import django_tasks_shop  # noqa: E402,F401
