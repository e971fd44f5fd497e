"""What a test holds in its hands: :func:`inline_worker`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from typing import Any
from weakref import WeakSet

from celery import Celery

from django_taskkit.base_tasks.verdicts import seconds_of
from django_taskkit.conf import current
from django_taskkit.dlq import spool_files
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.project import project_app
from django_taskkit.exceptions import TaskkitError
from django_taskkit.outbox.relay import Relayed
from django_taskkit.testing.assertions import Assertions
from django_taskkit.testing.engine import Engine, PriorityOrder
from django_taskkit.testing.events import Ran, Retried, Sent, Waiting
from django_taskkit.testing.faults import Ending, database_refusing, name_of
from django_taskkit.testing.isolation import forget_outages, isolated, renew_sender
from django_taskkit.testing.notes import Notes

LIMIT = 1000

_active: InlineWorker | None = None
_imported: WeakSet[Celery] = WeakSet()


class NestedError(TaskkitError):
    """A second inline worker is started while one is at work."""


class InlineWorker(Assertions):
    """A worker, a broker and a relay within a test; made by :func:`inline_worker`."""

    def __init__(self, app: Celery, *, eager: bool, limit: int, priority_order: PriorityOrder, place: str) -> None:
        self.app = app
        self.eager = eager
        self.place = place
        self._notes = Notes(app)
        self._engine = Engine(app, limit, priority_order)

    # -- the clock

    @property
    def now(self) -> datetime:
        """The time, in UTC. It stands still while nobody moves it."""
        return self._engine.clock.now()

    def advance(self, by: float | timedelta) -> list[Ran]:
        """Let ``by`` (seconds, or a timedelta) pass; what becomes due meanwhile runs, each message at its time.

        Raises:
            ValueError: time doesn't pass backwards.
            EndlessError: messages follow each other without an end.
        """
        return self._engine.run_until(self.now + timedelta(seconds=seconds_of(by)))

    def advance_retries(self, times: int | None = 1) -> list[Ran]:
        """Let the time pass until the next retry is due, and run it; what is due before runs before.

        What was put off by a ``Snooze``, a budget, a breaker or an idempotency key counts as a retry here.

        Args:
            times: how often; None: until no retry waits.

        Raises:
            AssertionError: no retry waits.
            EndlessError: it never ends.
        """
        ran = self.run()
        done = 0
        while times is None or done < times:
            due = [waiting.due for waiting in self.waiting if waiting.is_again and waiting.due]
            if not due:
                if times is None:
                    break
                raise AssertionError(f"no retry waits to be run{self._told()}")
            self._engine.refuse_endless(ran)
            ran += self._engine.run_until(min(due))
            done += 1
        return ran

    # -- running

    def run(self) -> list[Ran]:
        """Run what is due now, and what that sends, until nothing is due. Countdowns and retries wait for their time.

        Raises:
            EndlessError: messages follow each other without an end.
        """
        return self._engine.run_due()

    def run_next(self) -> Ran | None:
        """Run the next message that is due; None if none is."""
        return self._engine.run_one()

    def relay(self) -> Relayed:
        """Do one round of ``manage.py taskkit relay``: redrives, and what was spooled while the database was down.

        What waits in the outbox is sent without this, whenever messages are run.
        """
        return self._engine.relay()

    # -- what happened

    @property
    def sent(self) -> list[Sent]:
        """What was sent, by the test or by tasks; not retries."""
        return list(self._notes.sent)

    @property
    def retries(self) -> list[Retried]:
        """Runs that were to be repeated, also those that used up no retry."""
        return list(self._notes.retries)

    @property
    def ran(self) -> list[Ran]:
        """Every run so far."""
        return list(self._engine.ran)

    @property
    def waiting(self) -> list[Waiting]:
        """What has not run yet, on queues and in the outbox, in the order in which it is due."""
        return self._engine.waiting()

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """Those that died since the block began, in that order, as they are in the table now."""
        rows = DeadLetter.objects.in_bulk(self._notes.dead)
        return [rows[pk] for pk in dict.fromkeys(self._notes.dead) if pk in rows]

    # -- what goes wrong

    def fail_times(self, task: Any, times: int, exc: BaseException | type[BaseException] | None = None) -> None:
        """Have the next runs of ``task`` raise ``exc`` in the place of its body.

        Args:
            task: a task, or its name.
            times: how many runs.
            exc: an exception or its class; by default a ConnectionError.
        """
        error = ConnectionError("fail_times() of django_taskkit.testing") if exc is None else exc
        self._engine.faults.of(task).errors.extend([error] * _at_least_one(times))

    def kill_worker(self, task: Any, times: int = 1, *, after_run: bool = False) -> None:
        """Have the processes of the next runs of ``task`` die as by SIGKILL (or the kernel, out of memory).

        Args:
            task: a task, or its name.
            times: how many runs.
            after_run: die when the task has run and nobody has been told, rather than before it.
        """
        self._end(task, times, "killed after run" if after_run else "killed")

    def time_out(self, task: Any, times: int = 1) -> None:
        """Have the next runs of ``task`` exceed the hard time limit. For the soft one see :meth:`fail_times`."""
        self._end(task, times, "timed out")

    @contextmanager
    def broker_down(self) -> Iterator[None]:
        """Within the block nothing can be published. What a worker has on its queues still runs.

        Afterwards the outbox is sent when messages are run; with ``eager`` at the end of the block.
        """
        self._engine.broker.is_down = True
        try:
            yield
        finally:
            self._engine.broker.is_down = False
            forget_outages()
            renew_sender(self.app, self._on_sent)
        self._run_if_eager()

    @contextmanager
    def database_down(self) -> Iterator[None]:
        """Within the block every query fails. Dead letters are spooled meanwhile; :meth:`relay` brings them in."""
        self._engine.database_is_down = True
        try:
            with database_refusing():
                yield
        finally:
            self._engine.database_is_down = False
            forget_outages()

    def _end(self, task: Any, times: int, ending: Ending) -> None:
        self._engine.faults.of(task).endings.extend([ending] * _at_least_one(times))

    # -- behind the scenes

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        engine = self._engine
        with ExitStack() as stack:
            stack.callback(engine.clock.stop)
            engine.clock.start()
            stack.enter_context(isolated(self.app, engine.broker, self._on_sent))
            stack.callback(engine.stop)
            engine.start()
            stack.enter_context(self._notes.taken())
            yield

    def _on_sent(
        self, send: Callable[..., Any], producer: Any, name: str, message: Any, *args: Any, **options: Any
    ) -> Any:
        note = self._notes.sending(name, message, options)
        result = send(producer, name, message, *args, **options)
        if note is not None:
            self._notes.sent.append(note)
        self._run_if_eager()
        return result

    def _run_if_eager(self) -> None:
        if self.eager and not self._engine.is_running and not self._engine.broker.is_down:
            self._engine.run_all()

    def _spooled(self) -> int:
        return self._engine.broker.size(current().spool_queue) + len(spool_files.names())

    def _name(self, task: Any) -> str:
        return name_of(self.app, task)


@contextmanager
def inline_worker(
    app: Celery | None = None,
    *,
    eager: bool = False,
    limit: int = LIMIT,
    priority_order: PriorityOrder = "as_broker",
) -> Iterator[InlineWorker]:
    """Within the block, messages of the project's Celery app stay in this process, which runs them when told to.

    Nothing reaches the project's broker or result backend, and nothing of the block is left behind. The clock stands
    still, for everybody in the process, and goes on when the block says so.

    Args:
        app: the Celery app; by default the project's.
        eager: run each message when it is sent, and at once what follows: retries, countdowns, the rest of the chain,
            while the clock jumps to the time of each.
        limit: how many messages may run in one go.
        priority_order: which messages of a queue come first: ``"as_broker"``, as with the project's own broker,
            ``"highest_first"`` (RabbitMQ), ``"lowest_first"`` (Redis), or ``"none"``.

    Raises:
        ConfigurationError: time-machine is not installed; or the project has no Celery app.
        NestedError: there is an inline worker already.
    """
    global _active
    if _active is not None:
        raise NestedError(
            f"an inline worker has been at work since {_active.place}; use that one, or end its block first"
        )
    app = project_app() if app is None else app
    _import_tasks(app)
    tasks = InlineWorker(app, eager=eager, limit=limit, priority_order=priority_order, place=_caller())
    _active = tasks
    try:
        with tasks._at_work():
            yield tasks
    finally:
        _active = None


def _import_tasks(app: Celery) -> None:
    """Import what a worker imports when it starts, once: a test may know a task by its name alone."""
    if app not in _imported:
        loader: Any = app.loader
        loader.import_default_modules()
        _imported.add(app)


def _caller() -> str:
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "") in (__name__, "contextlib"):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _at_least_one(times: int) -> int:
    if isinstance(times, int) and times >= 1:
        return times
    raise ValueError(f"times={times!r} makes no sense; give a whole number, 1 or more")
