"""A station for cached results: each test has an empty cache, and a clock that stands still unless it is moved."""

import pytest
import time_machine
from django.core.cache import caches

from django_taskkit.base_tasks import BaseTaskWithRetry, DeadLetterTask
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


@pytest.fixture
def slow(station):
    """A task whose body does, in its middle, what the test has put into ``slow.meanwhile``."""
    meanwhile, made = [], []

    @station.app.task(name="shop.slow", base=DeadLetterTask)
    def slow(user_id):
        made.append(user_id)
        number = len(made)
        while meanwhile:
            meanwhile.pop()()
        return number

    task = station.app.tasks["shop.slow"]
    task.meanwhile, task.made = meanwhile, made
    return task


@pytest.fixture
def fragile(station):
    """A task that raises what is in ``fragile.errors``, one after the other, and then succeeds."""
    errors = []

    @station.app.task(
        name="shop.fragile", bind=True, base=BaseTaskWithRetry, autoretry_for=(OSError,), retry_backoff=30
    )
    def fragile(self, user_id):
        self.set_progress(1, 4, f"attempt {self.request.retries + 1}")
        if errors:
            raise errors.pop(0)
        return user_id

    task = station.app.tasks["shop.fragile"]
    task.errors = errors
    return task
