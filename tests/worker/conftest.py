"""What the tests of the worker's part share."""

import pytest
from celery import _state

from django_taskkit.dlq.pause import Troubles
from django_taskkit.worker import delivery_limit


@pytest.fixture(autouse=True)
def no_trouble_before(monkeypatch):
    """A database that one test takes away is there for the next, whose log says if it goes again."""
    delivery_limit.database_pause.end()
    monkeypatch.setattr(delivery_limit, "_troubles", Troubles())


@pytest.fixture(autouse=True)
def pool_of_this_test_alone():
    """A pool says for the whole process whether tasks may wait for results; the test's own waiting is no task's."""
    before = _state.task_join_will_block()
    yield
    _state._set_task_join_will_block(before)
