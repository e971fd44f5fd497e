"""The tasks of idempotency.py, the same for each side; what differs is what keeps their duplicates away."""

import os
import signal
import time
from pathlib import Path

from celery import Celery

SIDE = os.environ["BENCH_SIDE"]
FOLDER = Path(os.environ["BENCH_FOLDER"])
REDIS = os.environ["BENCH_REDIS"]

app = Celery("bench", broker=REDIS, backend=REDIS)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
    task_acks_late=False,
    ONCE={"backend": "celery_once.backends.Redis", "settings": {"url": REDIS}},  # its lock's default timeout: an hour
    singleton_backend_url=REDIS,  # its locks never expire by default
)


def options(*names):
    """What each side needs to tell duplicates by these arguments."""
    if SIDE == "celery-once":
        from celery_once import QueueOnce

        return {"base": QueueOnce, "once": {"keys": list(names)}}
    if SIDE == "celery-singleton":
        from celery_singleton import Singleton

        return {"base": Singleton, "unique_on": list(names)}
    if SIDE == "django-taskkit":
        import django

        django.setup()
        from django_taskkit.base_tasks import BaseTaskWithRetry

        # Acknowledged early, as on the other sides: the hardest case after a kill.
        return {"base": BaseTaskWithRetry, "idempotency_key": names, "acks_late": False, "retry_jitter": False}
    return {}


def note(task, order_id):
    with open(FOLDER / f"runs-{order_id}", "a") as file:
        file.write(f"{task.request.id} {time.time()}\n")


@app.task(name="bench.charge", bind=True, **options("order_id"))
def charge(self, order_id):
    note(self, order_id)
    time.sleep(0.5)
    return order_id


@app.task(name="bench.transfer", bind=True, **options("order_id", "currency"))
def transfer(self, order_id, currency="EUR"):
    note(self, order_id)
    time.sleep(0.5)
    return order_id


@app.task(
    name="bench.flaky",
    bind=True,
    autoretry_for=(ConnectionError,),
    **{"retry_backoff": 4, "retry_jitter": False, **options("order_id")},
)
def flaky(self, order_id):
    note(self, order_id)
    if not self.request.retries:
        raise ConnectionError("the bank is away")
    return order_id


@app.task(name="bench.deadly", bind=True, **options("order_id"))
def deadly(self, order_id):
    """The first run never ends by itself; ``die`` takes its process along, as the kernel's OOM killer does."""
    note(self, order_id)
    while not (FOLDER / f"over-{order_id}").exists():
        if (FOLDER / f"die-{order_id}").exists():
            (FOLDER / f"over-{order_id}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.05)
    return order_id


@app.task(name="bench.nothing", bind=True, **options("order_id"))
def nothing(self, order_id):
    return order_id
