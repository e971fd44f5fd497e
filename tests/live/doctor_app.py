"""A sane project, which the doctor has nothing to say about; its broker comes from the test."""

from __future__ import annotations

import os
import time

if ahead := float(os.environ.get("TASKKIT_TEST_CLOCK_AHEAD", "0")):
    right = time.time
    time.time = lambda: right() + ahead

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "doctor_settings")

import harness
from celery import Celery

from django_taskkit.base_tasks import BaseTaskWithRetry

app = Celery("doctor", task_cls="django_taskkit.base_tasks:DeadLetterTask")
app.conf.update(
    task_time_limit=120,
    task_soft_time_limit=100,
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_soft_shutdown_timeout=5,
    worker_enable_soft_shutdown_on_idle=True,
    beat_schedule={"work": {"task": "doctor.work", "schedule": 3600}},
    redis_socket_keepalive=True,
    redis_backend_health_check_interval=25,
)
app.conf.update(harness.celery_settings())


@app.task(name="doctor.work", base=BaseTaskWithRetry)
def work():
    return "done"


if "TASKKIT_TEST_MORE_TASKS" in os.environ:

    @app.task(name="doctor.newer")
    def newer():
        return "done"
