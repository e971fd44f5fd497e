"""The same for unittest and Django's test runner."""

from __future__ import annotations

import unittest
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, ClassVar

from django_taskkit.testing.inline import InlineWorker, inline_worker

if TYPE_CHECKING:
    Base = unittest.TestCase
else:
    Base = object


class TaskkitTestMixin(Base):
    """Gives each test of a Django test case an inline worker, as ``self.tasks``.

    Name it before the test case::

        class ReceiptTests(TaskkitTestMixin, TestCase): ...

    A ``setUp`` of yours has to call ``super().setUp()``.
    """

    taskkit_options: ClassVar[dict[str, Any]] = {}
    """What :func:`inline_worker` is called with: ``{"eager": True}``, say."""

    _tasks: InlineWorker | None = None

    @property
    def tasks(self) -> InlineWorker:
        """What runs the tasks of this test."""
        if self._tasks is None:
            raise AttributeError(f"{type(self).__name__} has no tasks yet; its setUp() has to call super().setUp()")
        return self._tasks

    def setUp(self) -> None:
        super().setUp()
        stack = ExitStack()
        self.addCleanup(stack.close)
        self._tasks = stack.enter_context(inline_worker(**self.taskkit_options))
