"""The worker of retry_budget.py: the same task that does nothing, behind nothing, a budget, and a breaker."""

from __future__ import annotations

import os
import time

import django
from django.conf import settings

NAME = os.environ.setdefault("BENCH_NAME", f"benchmark-{os.getpid()}")
REDIS = os.environ.get("BENCH_REDIS", "redis://127.0.0.1:6379/0")
SIDES = ("neither", "control", "budget", "breaker")

settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    TASKKIT={"SHARED_STORE": REDIS},
    USE_TZ=True,
)
django.setup()

from celery import Celery  # noqa: E402
from redis import Redis  # noqa: E402

from django_taskkit.base_tasks import BaseTaskWithRetry  # noqa: E402

app = Celery("retry_budget", broker=REDIS)
app.conf.update(
    task_default_queue=NAME,
    task_ignore_result=True,
    broker_transport_options={"global_keyprefix": f"{NAME}:"},
    broker_connection_retry_on_startup=True,
    worker_enable_remote_control=False,
)
client = Redis.from_url(REDIS)

OPTIONS = {"neither": {}, "control": {}, "budget": {"retry_budget": NAME}, "breaker": {"breaker": NAME}}


def nothing() -> None:
    pass


for side in SIDES:
    app.task(name=f"benchmark.{side}", base=BaseTaskWithRetry, **OPTIONS[side])(nothing)


@app.task(name="benchmark.hold")
def hold() -> None:
    """Keep the worker busy until all messages are there."""
    client.blpop(f"{NAME}:go", timeout=300)


@app.task(name="benchmark.mark")
def mark() -> None:
    client.rpush(f"{NAME}:marks", repr(time.process_time()))
