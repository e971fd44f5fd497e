"""A task that fails until it is cured, letters of it, and a clock that stands still."""

import itertools
import json
import threading
from datetime import timedelta

import pytest
from django.utils import timezone

from django_taskkit.dlq.redrive.creation import create_redrive
from django_taskkit.dlq.redrive.runner import Runner
from django_taskkit.models import DeadLetter, Redrive


class Clock:
    def __init__(self):
        self.now = timezone.now()

    def __call__(self):
        return self.now

    def forward(self, seconds):
        self.now += timedelta(seconds=seconds)


class Cure:
    """What the task raises; nothing once it is cured. A number's own failure goes before."""

    def __init__(self):
        self.error = ValueError
        self.of = {}
        self.runs = []

    def run(self, number):
        self.runs.append(number)
        if error := self.of.get(number, self.error):
            raise error(f"no {number}")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cure(station):
    cure = Cure()

    @station.app.task(name="shop.pay")
    def pay(number):
        cure.run(number)

    cure.task = pay
    return cure


@pytest.fixture
def die(station, cure):
    """Let so many tasks die, each of a ValueError."""
    numbers = itertools.count()

    def die(count):
        for _ in range(count):
            cure.task.delay(next(numbers))
        for _ in range(count):
            station.run_next()
        cure.runs.clear()
        return list(DeadLetter.objects.order_by("pk"))

    return die


@pytest.fixture
def letters(station):
    """Rows of letters, quicker to make than tasks that die."""
    numbers = itertools.count()

    def letters(count, **values):
        made = []
        for _ in range(count):
            number = next(numbers)
            made.append(
                DeadLetter(
                    **{
                        "task_id": f"row-{number}",
                        "task_name": "shop.pay",
                        "reason": "exception",
                        "exception_class": "ValueError",
                        "fingerprint": "f" * 40,
                        "queue": station.queue,
                        "died_at": timezone.now() - timedelta(minutes=1),
                        "body": json.dumps([[number], {}, {}]).encode(),
                        "content_type": "application/json",
                        "content_encoding": "utf-8",
                        "headers": {"id": f"row-{number}", "task": "shop.pay"},
                        **values,
                    }
                )
            )
        DeadLetter.objects.bulk_create(made)
        return list(DeadLetter.objects.filter(task_id__in=[row.task_id for row in made]).order_by("pk"))

    return letters


@pytest.fixture
def redrive():
    """Make a redrive of all dead letters."""
    return lambda **options: create_redrive(DeadLetter.objects.filter(status="dead"), **options)


@pytest.fixture
def runner(station, clock):
    """Make a runner that asks no worker, since none runs."""
    names = itertools.count(1)
    return lambda redrive, **options: Runner(
        redrive.pk, station.app, **{"holder": f"runner {next(names)}", "ask": False, "clock": clock, **options}
    )


@pytest.fixture
def in_thread():
    """Call something in a thread with connections of its own."""
    from django.db import connections

    def call(action):
        def target():
            try:
                action()
            finally:
                connections.close_all()

        thread = threading.Thread(target=target)
        thread.start()
        return thread

    return call


@pytest.fixture
def counts():
    """State, and how many were sent, refused, have recovered and have failed again."""

    def counts(redrive):
        row = Redrive.objects.get(pk=redrive.pk)
        return row.state, row.sent, row.refused, row.recovered, row.failed_again

    return counts
