"""What pools that run tasks in the worker's own process (threads, gevent, eventlet, solo) drop, caught.

``SystemExit``, other BaseExceptions and whatever escapes Celery's tracer (the result backend is down!) vanish there:
no acknowledgement, no failure, and the slot is gone for good, so that the worker looks alive and takes nothing more.
"""

from __future__ import annotations

import sys
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery.concurrency.solo import TaskPool as Solo
from celery.exceptions import TaskRevokedError, WorkerTerminate
from celery.platforms import EX_FAILURE

from django_taskkit.worker.delivery_limit import DeliveryLimitError
from django_taskkit.worker.reports import raised
from django_taskkit.worker.requests import GuardedRequest


class InProcessRequest(GuardedRequest):
    """A message that is run in the process that received it."""

    waits_in_pool = True
    _ending = False

    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
        try:
            result = super().execute_using_pool(pool, **kwargs)
        except TaskRevokedError:
            raise
        except Exception as exc:
            if self.time_start is None and not isinstance(exc, DeliveryLimitError):  # the pool would not take it
                raise
            self._on_escape(ExceptionInfo())  # solo: the task has run in this very call
            return None
        future = getattr(result, "f", None)
        if future is not None:  # threads
            future.add_done_callback(self._on_done)
        elif hasattr(result, "link_exception"):
            from gevent import spawn  # type: ignore[import-untyped,unused-ignore]

            # A link runs in gevent's hub, where nothing may block.
            result.link_exception(lambda greenlet: spawn(self._on_escape, _einfo(greenlet.exception)))
        return result

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        if self._was_delivered_before():
            self._count_start()  # what this raises keeps the pool from running it, and comes back as its outcome
        super().on_accepted(pid, time_accepted)

    def _on_done(self, future: Any) -> None:
        if not future.cancelled() and (exc := future.exception()) is not None:
            self._on_escape(_einfo(exc))

    def _on_escape(self, exc_info: Any) -> None:
        self.on_failure(exc_info, return_ok=False)
        if not self.task.acks_late:
            self.acknowledge()

    def terminate(self, *args: Any, **kwargs: Any) -> None:
        self._ending = True
        super().terminate(*args, **kwargs)

    def cancel(self, pool: Any, *args: Any, **kwargs: Any) -> None:
        if _in_hub():
            # Where nothing may block, and the death of a task that is killed here could not be written down.
            from gevent import spawn

            spawn(self.cancel, pool, *args, **kwargs)
            return
        self._ending = True
        try:
            super().cancel(pool, *args, **kwargs)
        except NotImplementedError:
            # Nobody can end a thread: it runs on, and the process waits for it. The one of solo is here, though, in
            # this signal handler's own stack, and Celery would have the task fail with this very error.
            self._ending = False
            if isinstance(pool, Solo):
                self._announce_cancelled(**kwargs)
                raise WorkerTerminate(EX_FAILURE) from None

    def on_success(self, failed__retval__runtime: Any, **kwargs: Any) -> Any:
        if isinstance(failed__retval__runtime, ExceptionInfo):  # a BaseException, which Celery can't unpack
            return self.on_failure(failed__retval__runtime, return_ok=False)
        failed, _retval, runtime = failed__retval__runtime
        if failed is False and runtime is None:
            # A killed greenlet is reported as a success, and would be acknowledged. Whoever kills it on purpose
            # says afterwards what becomes of the message.
            if self._ending:
                return None
            return self.on_failure(raised(WorkerLostError("the greenlet was killed")), return_ok=False)
        try:
            return super().on_success(failed__retval__runtime, **kwargs)
        except Exception as exc:
            if failed:
                raise
            # It has succeeded and stays so; the broker will deliver again what it was not told of.
            self._say_unreported(exc)
            return None


def _einfo(exc: BaseException) -> Any:
    return ExceptionInfo((type(exc), exc, exc.__traceback__))


def _in_hub() -> bool:
    """Say whether gevent's loop runs this: a signal handler, when no greenlet had anything to do."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(gevent.getcurrent(), gevent.hub.Hub)
