"""A station for cached results: each test has an empty cache, and a clock that stands still unless it is moved."""

import pytest
import time_machine
from django.core.cache import caches

from django_taskkit.stores.opening import _open


@pytest.fixture(autouse=True)
def empty_cache():
    caches["default"].clear()
    _open.clear()
    yield
    caches["default"].clear()
    _open.clear()


@pytest.fixture
def clock():
    with time_machine.travel("2026-11-22 10:00:00+00:00", tick=False) as traveller:
        yield traveller


@pytest.fixture
def report(station):
    """A task that says how often its body was run: ``report.runs`` has what it was called with."""
    runs = []

    @station.app.task(name="shop.report")
    def report(user_id, month="2026-11"):
        runs.append((user_id, month))
        return {"user": user_id, "month": month, "made": len(runs)}

    task = station.app.tasks["shop.report"]
    task.runs = runs
    return task
