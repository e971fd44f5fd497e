"""A small plain Celery project on the durable filesystem broker, for test_filesystem_transport.py."""

import ctypes
import os
import time

from celery import Celery

FOLDER = os.environ["TASKKIT_TEST_BROKER"]
LEDGER = os.environ["TASKKIT_TEST_LEDGER"]

app = Celery("filesystem_app", broker="filesystem://")
app.conf.update(
    broker_transport="django_taskkit.transports.filesystem:Transport",
    broker_transport_options={"folder": FOLDER},
    broker_connection_retry_on_startup=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=2,
)


def note(event, number):
    """Append one line to the ledger; lines this short arrive whole, whoever else is writing."""
    with open(LEDGER, "a") as ledger:
        ledger.write(f"{event} {number} {os.getpid()} {time.time()}\n")


PR_SET_PDEATHSIG = 1


@app.task(bind=True, name="work")
def work(self, number, seconds=0.0, outlive_parent=False):
    """Take `seconds` the first time, and none when the message was redelivered.

    On Linux, Celery has the kernel kill a pool's children along with their parent; `outlive_parent` undoes
    that, for a child as it is on other systems.
    """
    if outlive_parent:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, 0)
    note("started", number)
    if not self.request.delivery_info["redelivered"]:
        time.sleep(seconds)
    note("done", number)
