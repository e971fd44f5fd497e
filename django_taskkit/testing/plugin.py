"""The pytest plugin: one fixture, one mark. Nothing of Django or Celery is imported before a test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from django_taskkit.testing.inline import InlineWorker

MARK = "taskkit(eager=False, limit=1000, priority_order='as_broker'): options of the fixture taskkit"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)


@pytest.fixture
def taskkit(request: pytest.FixtureRequest) -> Iterator[InlineWorker]:
    """The project's tasks run in this process, when the test says so; see :func:`django_taskkit.testing.inline_worker`.

    A test whose tasks die or whose broker is down needs a database: pytest-django's mark ``django_db``.
    """
    from django_taskkit.testing import inline_worker

    options = {}
    for mark in reversed(list(request.node.iter_markers("taskkit"))):
        if mark.args:
            raise pytest.UsageError(f"the mark taskkit takes options by name, such as eager=True; not {mark.args!r}")
        options.update(mark.kwargs)
    with inline_worker(**options) as tasks:
        yield tasks
