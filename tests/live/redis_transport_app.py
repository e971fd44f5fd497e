"""A small plain Celery project on the atomic Redis transport, for test_redis_workers.py."""

import os
import time

import harness
from celery import Celery

app = Celery("redis_transport_app", fixups=[])
app.conf.update(harness.celery_settings())


def note(event, number):
    """Append one line to the ledger; lines this short arrive whole, whoever else is writing."""
    with open(os.environ["TASKKIT_TEST_LEDGER"], "a") as ledger:
        ledger.write(f"{event} {number}\n")


@app.task(bind=True, name="work", acks_late=True, reject_on_worker_lost=True, max_retries=1)
def work(self, number, seconds=0.0, retry=False):
    note("started", number)
    if retry and not self.request.retries:
        raise self.retry(countdown=0.5)
    time.sleep(seconds)
    note("done", number)
