"""The Celery app of workers, relays and producer: with django_taskkit, or plain."""

from __future__ import annotations

import os

import harness
from celery import Celery

from account import tasks
from account.projects import here

if here().ours:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "account.settings")
    app = Celery("account", task_cls="django_taskkit.base_tasks:DeadLetterTask")
else:
    app = Celery("account", fixups=[])
app.conf.update(harness.celery_settings())
tasks.declare(app)
