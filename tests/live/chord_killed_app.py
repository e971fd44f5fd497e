"""The worker of test_chord_killed.py: its result backend kills a process once, at a place that the test names."""

from __future__ import annotations

import os
import signal
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery, shared_task
from celery.backends.redis import RedisBackend

app = Celery("chord_killed")
app.conf.update(harness.celery_settings())


class Backend(RedisBackend):
    def on_chord_part_return(self, *args, **kwargs):
        kill_once("before it is counted")
        return super().on_chord_part_return(*args, **kwargs)

    def _chord_publish_claim_expires(self, *args):
        kill_once("before the body is sent")
        return super()._chord_publish_claim_expires(*args)


def kill_once(place: str) -> None:
    marker = Path(os.environ["TASKKIT_TEST_MARKER"])
    if place == os.environ["TASKKIT_TEST_PLACE"] and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)


@shared_task(name="chord_killed.number")
def number(value: int) -> int:
    return value


@shared_task(name="chord_killed.total")
def total(values: list[int]) -> int:
    return sum(values)
