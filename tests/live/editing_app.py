"""The worker of test_editing.py; the test's own process knows its tasks as well."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "letters_settings")

import harness
from celery import Celery


def note(path: str, text: str) -> None:
    with open(path, "a") as notes:
        notes.write(f"{text}\n")


def pay(path: str, order: int, *, currency: str = "EUR") -> str:
    if not isinstance(order, int):
        raise TypeError(f"{order!r} is no order")
    note(path, f"paid {order} {currency}")
    return path


def thank(path: str, name: str) -> None:
    note(path, f"thanked {name}")


def with_tasks(app: Celery) -> Celery:
    """Make them tasks of ``app``, and of no other."""
    for task in (pay, thank):
        app.task(name=f"editing.{task.__name__}", shared=False)(task)
    return app


app = Celery("editing", set_as_current=False)
app.conf.update(harness.celery_settings())

with_tasks(app)
