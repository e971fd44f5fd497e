"""A project with lanes: tasks that note when they start, and end when they are let."""

import os
import time
from pathlib import Path

import harness
from celery import Celery

app = Celery("lanes", fixups=[])
app.conf.update(harness.celery_settings())

FOLDER = Path(os.environ.get("LANES_FOLDER", "."))


def note(what, name):
    """One file for each run, so that one too many shows."""
    with open(FOLDER / f"{what}-{name}", "a") as file:
        file.write("x")


@app.task
def wait_for(name, file):
    note("started", name)
    deadline = time.monotonic() + 120
    while not (FOLDER / file).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    note("finished", name)


@app.task
def take(name, seconds):
    note("started", name)
    time.sleep(seconds)
    note("finished", name)
