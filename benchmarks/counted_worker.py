"""The worker of one side under cProfile: how many calls Celery and django-taskkit make in its main process.

Counted by who calls, with what drives the event loop left out: that turns as often as the machine lets it, and with it
kombu's hub and transport.
"""

import cProfile
import json
import os
import pstats
import sys
from pathlib import Path

import celery
from bench_app import FOLDER, SIDE, app
from celery.concurrency import asynpool
from celery.signals import worker_process_init, worker_ready
from celery.worker import loops

import django_taskkit

HOMES = tuple(f"{Path(package.__file__).parent}{os.sep}" for package in (celery, django_taskkit))
TURNING = (asynpool.__file__, loops.__file__)

profile = cProfile.Profile()


@worker_ready.connect
def begin(**kwargs):
    profile.enable()


@worker_process_init.connect
def spare_the_pool(**kwargs):
    profile.disable()


def made_by_tasks(stats):
    callers = [caller for *_, callers in stats.stats.values() for caller in callers.items()]
    return sum(calls[0] for (file, _line, _name), calls in callers if file.startswith(HOMES) and file not in TURNING)


try:
    app.worker_main(sys.argv[1:])
finally:
    profile.disable()
    stats = pstats.Stats(profile)
    (FOLDER / f"calls-{SIDE}").write_text(json.dumps([made_by_tasks(stats), stats.total_calls]))
