"""The Celery app whose tasks died, as the driver and both sides of requeue.py import it."""

import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "requeue_settings")
django.setup()

app = Celery("bench", broker=os.environ["BENCH_BROKER"])
app.conf.task_default_queue = os.environ["BENCH_QUEUE"]
if app.conf.broker_url.startswith("redis"):
    app.conf.broker_transport_options = {"global_keyprefix": os.environ["BENCH_QUEUE"] + ":"}


@app.task(name="bench.receipt")
def receipt(number, text="", flag=False):
    return number
