"""The Celery app that is measured: one task that does nothing, with the same options on both sides."""

import os
from pathlib import Path

import django
from celery import Celery
from celery.signals import worker_ready

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "bench_settings")
django.setup()

from django.conf import settings  # noqa: E402
from django.db.backends.signals import connection_created  # noqa: E402

FOLDER = Path(os.environ["BENCH_FOLDER"])
SIDE = os.environ["BENCH_SIDE"]
PREFIX = {"global_keyprefix": os.environ["BENCH_PREFIX"]}

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.update(
    task_default_queue="bench",
    broker_connection_retry_on_startup=True,
    broker_transport_options=PREFIX,
    result_backend_transport_options=PREFIX,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)
if os.environ.get("BENCH_RESULTS"):
    app.conf.result_backend = os.environ["BENCH_REDIS"]

if settings.WITH_TASKKIT:
    from django_taskkit.base_tasks import BaseTaskWithRetry

    options = {"base": BaseTaskWithRetry}
else:
    options = {"autoretry_for": (Exception,), "max_retries": 5, "retry_backoff": True}


@app.task(name="bench.nothing", **options)
def nothing(number, text="", flag=False):
    return number


@worker_ready.connect
def say_ready(**kwargs):
    (FOLDER / f"ready-{SIDE}").touch()


@connection_created.connect
def watch_database(*, connection, **kwargs):
    """Note one byte for each connection and each query, from whatever process: the file's size is their number."""

    def count(execute, *args):
        note()
        return execute(*args)

    note()
    connection.execute_wrappers.append(count)


def note():
    with open(FOLDER / f"queries-{SIDE}", "ab", buffering=0) as file:
        file.write(b".")
