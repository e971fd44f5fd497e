"""A pool whose processes are no processes: each job is run, or lost, by whoever asks for it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.pool import ApplyResult, Pool, TimeoutHandler
from celery.concurrency.prefork import TaskPool

PID = 4242
SIGKILL = -9
"""What billiard is told of a process that was killed."""

HARD_LIMIT = 1
"""Seconds of the hard time limit that a task without one exceeds."""

AS_IN_A_PROCESS = (Exception, SystemExit, GeneratorExit)
"""What a task raises belongs to its run. All else (Ctrl-C, ``pytest.fail()``) belongs to the test."""

_JOB_OPTIONS = ("callback", "accept_callback", "timeout_callback", "error_callback", "soft_timeout", "timeout")

base: Any = TaskPool


class Job:
    """One task in a pool process, as its worker sees it: billiard's own job."""

    def __init__(self, target: Callable[..., Any], args: tuple[Any, ...], **options: Any) -> None:
        self._target = target
        self._args = args
        # What a callback raises would disturb a worker's loop; here it is for the test to see.
        self.applied: Any = ApplyResult({}, callbacks_propagate=(Exception,), **options)

    def run(self) -> tuple[bool, Any]:
        """Run the task and report, over a pipe as it were, what came of it; return that."""
        self._accept()
        outcome = pickle.loads(pickle.dumps(self._call()))  # noqa: S301 (its own, as between the processes of a pool)
        self.applied._set(0, outcome)
        return outcome  # type: ignore[no-any-return]

    def die(self, *, after_run: bool) -> None:
        """Die as by SIGKILL: before the task, or after it and before anybody is told."""
        self._accept()
        if after_run:
            self._call()
        losing: Any = Pool.mark_as_worker_lost
        losing(None, self.applied, SIGKILL)

    def exceed_time_limit(self) -> None:
        """Be ended for having taken longer than the hard time limit."""
        self._accept()
        self.applied._timeout = self.applied._timeout or HARD_LIMIT
        TimeoutHandler([], {}, None, None).on_hard_timeout(self.applied)

    def _accept(self) -> None:
        self.applied._ack(None, time.monotonic(), PID, None)

    def _call(self) -> tuple[bool, Any]:
        try:
            return True, self._target(*self._args)
        except AS_IN_A_PROCESS:
            return False, ExceptionInfo()


class InlinePool(base):  # type: ignore[misc]
    """Celery's prefork pool without its processes."""

    def __init__(self, app: Any) -> None:
        super().__init__(limit=1, app=app)
        self._job: Job | None = None

    def on_apply(
        self, target: Callable[..., Any], args: tuple[Any, ...] = (), kwargs: Any = None, **options: Any
    ) -> Any:
        self._job = Job(target, args, **{name: options[name] for name in _JOB_OPTIONS})
        return self._job.applied

    def terminate_job(self, pid: int, signal: Any = None) -> None:
        """There is nobody to end."""

    def take_job(self) -> Job:
        """Return the job that was handed over."""
        job, self._job = self._job, None
        if job is None:
            raise RuntimeError("no job was handed to the pool")
        return job
