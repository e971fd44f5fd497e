"""What the probes look at, and facts that several of them need and that are asked for once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from celery import Celery

from django_taskkit import conf
from django_taskkit.exceptions import BrokerUnreachableError
from django_taskkit.observability import queues, workers
from django_taskkit.observability.queues import QueueState
from django_taskkit.observability.workers import WorkerState

T = TypeVar("T")


NOBODYS = ("celery.", "taskkit.probe.")
"""What the names of tasks begin with that no project sends to its own workers."""


class Site:
    """The project as it runs now.

    Args:
        timeout: seconds that each probe may take.
    """

    def __init__(self, app: Celery, *, timeout: float = 15) -> None:
        self.app = app
        self.timeout = timeout
        self.patience = timeout * 0.8
        """Seconds for one question, so that its own error is there before the probe is given up."""
        self._known: dict[str, Any] = {}
        self._unreachable: BrokerUnreachableError | None = None
        self.database_is_down = False
        """Set when no connection was to be had, so that nobody waits for the next one."""
        self._imported: tuple[Exception | None] | None = None

    @property
    def driver(self) -> str:
        """The broker's kind: ``redis``, ``amqp``, ``sqs``, ``filesystem``, ``memory``, ..."""
        return str(self.app.connection_for_read().transport.driver_type)

    def import_tasks(self) -> Exception | None:
        """Import what a worker imports, to know its tasks; return what a module of the project's raised, if one did."""
        if self._imported is None:
            try:
                self.app.loader.import_default_modules()
            except Exception as exc:
                self._imported = (exc,)
            else:
                self._imported = (None,)
        return self._imported[0]

    def on_broker(self, ask: Callable[[Any], T]) -> T:
        """Return what ``ask`` returns of a new connection to the broker.

        Raises:
            BrokerUnreachableError: at once, if the broker was out of reach before.
        """
        if self._unreachable is not None:
            raise self._unreachable
        try:
            return queues.on_broker(self.app, ask, timeout=self.patience)
        except BrokerUnreachableError as exc:
            self._unreachable = exc
            raise

    def workers(self) -> list[WorkerState]:
        """Return the workers that answer, and which tasks they know.

        Raises:
            BrokerUnreachableError: see `on_broker`.
        """
        timeout = min(2.0, self.patience / 6)  # it takes four times as long at worst, and connects
        return self._once("workers", lambda: workers.ask(self.app, timeout=timeout, tasks=True))

    def queues(self) -> list[QueueState]:
        """Return the state of the project's own queues: see `queue_names`.

        Raises:
            BrokerUnreachableError: see `on_broker`.
        """
        return self._once("queues", lambda: queues.look(self.app, self.queue_names(), timeout=self.patience))

    def queue_names(self) -> list[str]:
        """Return the queues that are declared or that a task is routed to; not those that the relay alone reads."""
        taskkit = conf.current()
        others = {taskkit.spool_queue, *taskkit.intake_queues, ""}
        routed = map(self.queue_of, self.task_names())
        return [name for name in dict.fromkeys([*map(str, self.app.amqp.queues), *routed]) if name not in others]

    def task_names(self) -> list[str]:
        """Return the names of the project's tasks and of this app's own, without Celery's."""
        return sorted(name for name in self.app.tasks if not name.startswith(NOBODYS))

    def queue_of(self, task: str) -> str:
        """Return the queue that a task is sent to; empty if the routes don't say."""
        try:
            route: dict[str, Any] = self.app.amqp.router.route({}, task)
        except Exception:  # a router of the project's, or a queue that is not there: the checks say so
            return ""
        queue = route.get("queue")
        return str(getattr(queue, "name", queue) or "")

    def _once(self, name: str, ask: Callable[[], T]) -> T:
        if self._unreachable is not None:
            raise self._unreachable
        if name not in self._known:
            try:
                self._known[name] = ask()
            except BrokerUnreachableError as exc:
                self._unreachable = exc
                raise
        return self._known[name]  # type: ignore[no-any-return]
