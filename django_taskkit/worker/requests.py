"""The second choke point: the worker's own view of a message, from its arrival to its acknowledgement.

What kills a task together with its process (a signal, the hard time limit, ``os._exit``), what keeps it from running
(revoked, expired, a limit reached) and what is wrong outside its body reaches Celery's ``Request`` alone. The row is
written there before Celery goes on, which is before it acknowledges the message.

The class that Celery makes for each task is subclassed once more, whatever ``Task.Request`` the project has.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from time import monotonic, time
from typing import Any

from billiard.einfo import ExceptionInfo
from billiard.exceptions import Terminated, TimeLimitExceeded, WorkerLostError
from celery import __version__ as celery_version
from celery.exceptions import Ignore, InvalidTaskError, Reject, Retry, TaskRevokedError
from celery.worker import state
from celery.worker.request import Request
from kombu.exceptions import OperationalError

from django_taskkit.dlq.models import Reason, Redelivery
from django_taskkit.envelope import RAW_MESSAGE, REQUEUED_AT_HEADER
from django_taskkit.worker.capture import RECORDED
from django_taskkit.worker.chord_members import report_member
from django_taskkit.worker.delivery_limit import DeliveryLimitError, count_start, forget_start, limit_of
from django_taskkit.worker.errors import CancelledError, ForeignError, OutOfMemoryError, reason_of
from django_taskkit.worker.headers import wrong_header
from django_taskkit.worker.outside import connection_closed_afterwards, record_request, tell_of_retry
from django_taskkit.worker.reports import exception_of, raised, traceback_of
from django_taskkit.worker.sighandler import apart
from django_taskkit.worker.this_consumer import queue_of
from django_taskkit.worker.workflows import end_chain

logger = logging.getLogger("django_taskkit")

ENDED = (SystemExit, KeyboardInterrupt, WorkerLostError, Terminated)
"""What is reported of a process that has ended."""

TIMEOUT_HAS_HOOKS = tuple(map(int, celery_version.split(".")[:2])) >= (5, 7)
"""Celery reports a hard time limit twice, by on_failure and on_timeout; since 5.7 the latter is the fuller report."""

Base: Any = Request  # whose stubs lack what is overridden here


class GuardedRequest(Base):  # type: ignore[misc]
    """A message whose death is written down before it is acknowledged."""

    waits_in_pool = False
    """Whether the pool may keep the message for a while before it runs: an innocent one, beside one that kills."""

    taskkit_recorded = False
    taskkit_starts = 1
    taskkit_claims = 0
    _counted = False
    _told = False
    _already_cancelled: bool
    _already_revoked: bool
    _success_meta: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        message = self.message
        # As _payload, which takes a lock; dict is looked for first, as Mapping takes ten times as long.
        _args, task_kwargs, embed = self.body if self._decoded else message.payload
        if not isinstance(task_kwargs, (dict, Mapping)) or not isinstance(embed, (dict, Mapping, type(None))):
            # Celery would run nothing, store nothing and acknowledge the message.
            raise InvalidTaskError("keyword arguments and options of a task have to be mappings")
        if wrong := wrong_header(self._request_dict):
            raise InvalidTaskError(f"header {wrong} can't be {self._request_dict[wrong]!r}")
        # For whoever captures its failure. The pool sends the body anyway, and pickles the one object once.
        body = message.body if self.content_type is None else self.body
        raw = (body, message.content_type, message.content_encoding, message.headers, queue_of(message))
        self._request_dict[RAW_MESSAGE] = raw

    # -- before it runs

    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Any:
        if self._was_delivered_before() and not self.waits_in_pool:
            try:
                self._count_start()
            except DeliveryLimitError:
                self.on_failure(ExceptionInfo())
                raise TaskRevokedError(self.id) from None  # which is how the worker gets its pool slot back
        return super().execute_using_pool(pool, **kwargs)

    def _count_start(self) -> None:
        """Count a start of a message that was delivered before.

        Raises:
            DeliveryLimitError: it was started as often as it may be.
        """
        if (limit := limit_of(self)) is not None:
            self._counted = True
            with connection_closed_afterwards(Redelivery):
                self.taskkit_starts = count_start(self)
            if self.taskkit_starts > limit:
                raise DeliveryLimitError(f"started {limit} times and never ended")

    def _was_delivered_before(self) -> bool:
        # Some of kombu's transports say so beside the message's properties, not in them.
        raw = getattr(self.message, "_raw", None)
        return bool(self.delivery_info["redelivered"] or (isinstance(raw, (dict, Mapping)) and raw.get("redelivered")))

    def revoked(self) -> bool:
        requeued_at = self._request_dict.get(REQUEUED_AT_HEADER)
        if requeued_at and not self._already_revoked and self.id in state.revoked:
            # Workers remember for hours whom they were told to revoke; the requeue is the newer word.
            revoked: Any = state.revoked
            noted: float = revoked._data[self.id][0]
            if monotonic() - noted > time() - requeued_at:
                revoked.discard(self.id)
        return bool(super().revoked())

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        if not self._already_revoked:
            error = TaskRevokedError("expired" if expired else f"{reason} by request")
            self._record(Reason.EXPIRED if expired else Reason.REVOKED, error)
            end_chain(self, reason)
        try:
            super()._announce_revoked(reason, terminated, signum, expired)
        except Exception as exc:
            self._go_on(exc)
            self.acknowledge()
            self._already_revoked = True

    def _announce_cancelled(self, *args: Any, **kwargs: Any) -> None:
        if self.acknowledged:  # Celery says "retry" here, and nothing is retried
            error = CancelledError("the worker was shut down before the task ended")
            apart(lambda: self._record(Reason.WORKER_LOST, error))
        try:
            super()._announce_cancelled(*args, **kwargs)
        except Exception as exc:  # the others are to be cancelled as well
            self._say_unreported(exc)
            self._already_cancelled = True

    # -- when it has run

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        exc = exception_of(exc_info)
        if (self._already_cancelled or self._already_revoked) and isinstance(exc, ENDED):
            state.task_ready(self)  # its process ended because it was told to, and it was said what becomes of it
            return None
        if self._already_revoked or isinstance(exc, (Retry, Ignore, Terminated)):
            return super().on_failure(exc_info, send_failed_event, return_ok)
        if isinstance(exc, (SystemExit, KeyboardInterrupt)):
            # Celery 5.5 and 5.6 can't store these; 5.7 makes the same of them.
            exc_info = raised(WorkerLostError(f"the task ended its process: {exc!r}"), exc_info)
            exc = exception_of(exc_info)
        if return_ok and isinstance(exc, (WorkerLostError, TimeLimitExceeded)):
            # Of a subtask that it waited for: the task's own failure, which its process has stored.
            self._record_unless_captured(exc_info, return_ok)
            exc_info = raised(ForeignError(repr(exc)), exc_info)
            return self._tell(exc_info, send_failed_event, return_ok)
        if self._was_stored(exc):
            if report_member(self, self._success_meta, lambda: self.on_failure(exc_info, send_failed_event, return_ok)):
                return None  # not acknowledged yet
        elif isinstance(exc, WorkerLostError) and self._will_be_retried():
            return self._tell(exc_info, send_failed_event, return_ok)
        timed_out = isinstance(exc, TimeLimitExceeded)
        if self._comes_back(exc):
            self._told = timed_out
            limit = limit_of(self)
            if limit is None or self.taskkit_starts < limit:
                return super().on_failure(exc_info, send_failed_event, return_ok)
            error = DeliveryLimitError(f"started {limit} times and never ended; at last: {exc!r}")
            exc_info, return_ok, timed_out = raised(error, exc_info), False, False
        self._record_unless_captured(exc_info, return_ok)
        if isinstance(exc, MemoryError):  # Celery ends the whole worker, and the next one that gets the message
            exc_info = raised(OutOfMemoryError(str(exc)), exc_info)
        elif timed_out and TIMEOUT_HAS_HOOKS and not state.should_terminate:
            return None  # on_timeout follows, and tells it all
        self._told = self._told or timed_out
        return self._tell(exc_info, send_failed_event, return_ok)

    def _record_unless_captured(self, exc_info: Any, return_ok: bool) -> None:
        exc = exception_of(exc_info)
        # An error outside the task's body comes as a report of its own; the one that was captured stayed in the tracer.
        captured = return_ok and (getattr(exc_info, RECORDED, False) or exc_info.internal)
        if captured and not isinstance(exc, Reject):
            self.taskkit_recorded = True
        elif not self._was_stored(exc):
            own = return_ok and not isinstance(exc, Reject)
            self._record(Reason.EXCEPTION if own else reason_of(exc), exc, traceback_of(exc_info), is_told=own)

    def _tell(self, exc_info: Any, send_failed_event: bool, return_ok: bool) -> Any:
        try:
            return super().on_failure(exc_info, send_failed_event, return_ok)
        except Exception as unexpected:
            return self._go_on(unexpected)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        if soft:
            return super().on_timeout(soft, timeout)
        if self._told:
            return None  # on_failure has told it all; twice would count a chord's member twice
        exc = TimeLimitExceeded(timeout)
        comes_back = self._comes_back(exc)
        if not comes_back:
            self._record(Reason.TIME_LIMIT, exc)
        # The hooks that Celery calls here find their request.
        self.task.request_stack.push(self._context)
        try:
            super().on_timeout(soft, timeout)
        except Exception as unexpected:
            self._go_on(unexpected, comes_back=comes_back)
        finally:
            self.task.request_stack.pop()
        if comes_back and not self.acknowledged and not state.should_terminate:
            self.reject(requeue=True)  # Celery 5.5 and 5.6 leave it with this worker, which takes nothing in its place
        return None

    def acknowledge(self) -> None:
        super().acknowledge()
        self._forget_starts()

    def reject(self, requeue: bool = False) -> None:
        if not requeue and not self.acknowledged:  # an eta beyond the calendar, for one
            self._record(Reason.INVALID, InvalidTaskError("the worker rejected the message"))
        super().reject(requeue=requeue)
        if not requeue:
            self._forget_starts()

    def _forget_starts(self) -> None:
        """Forget the starts of a message that has ended: its id may be used again, for a nightly task say."""
        if self._counted:
            self._counted = False
            with connection_closed_afterwards(Redelivery):
                forget_start(self)

    # -- what Celery will do

    def _comes_back(self, exc: Any) -> bool:
        """Say whether the broker gets the message back, to deliver it again."""
        task: Any = self.task
        if isinstance(exc, Reject):
            return bool(getattr(exc, "requeue", False)) and not self.acknowledged
        if not task.acks_late or self.acknowledged:
            return False
        if isinstance(exc, TimeLimitExceeded):
            either = getattr(task, "acks_on_failure_or_timeout", True)
            acknowledges = getattr(task, "acks_on_timeout", either)
            return not (either if acknowledges is None else acknowledges)
        if isinstance(exc, WorkerLostError):
            # A retry that can't be published leaves it to Celery; see _retry_worker_lost.
            retries = getattr(task, "retry_on_worker_lost", False)
            return bool(task.reject_on_worker_lost) and not retries and not self._was_stored(exc)
        return False

    def _will_be_retried(self) -> bool:
        """Say whether Celery (since 5.7) publishes a retry for a lost process."""
        task: Any = self.task
        if not getattr(task, "retry_on_worker_lost", False):
            return False
        return task.max_retries is None or self._context.retries < task.max_retries

    def _retry_worker_lost(self, exc: BaseException, exc_info: Any) -> bool:
        is_sent = True
        try:
            is_sent = super()._retry_worker_lost(exc, exc_info)
        except Exception as unexpected:  # the retry is on its way
            self._go_on(unexpected)
        if is_sent:
            tell_of_retry(self)
        elif not (self.task.acks_late and self.task.reject_on_worker_lost):
            self._record(Reason.PUBLISH_FAILED, exc, traceback_of(exc_info))
        return is_sent

    def _was_stored(self, exc: BaseException) -> bool:
        """Say whether the process was lost only after the task's success had been stored."""
        return isinstance(exc, WorkerLostError) and bool(self._success_was_stored())

    def _success_was_stored(self) -> Any:
        if self._success_meta is None:
            ask = getattr(super(), "_success_was_stored", None)  # since Celery 5.7
            self._success_meta = ask() if ask else False
        return self._success_meta

    # -- what is left to us

    def _record(self, reason: Reason, exc: Any, traceback: str = "", is_told: bool = False) -> None:
        if not self.taskkit_recorded:
            self.taskkit_recorded = True
            cause = getattr(exc, "reason", None) if isinstance(exc, Reject) else None
            if isinstance(cause, OperationalError):  # Celery's own retry() says so when it can't publish
                reason, exc = Reason.PUBLISH_FAILED, cause
            record_request(self, reason, exc, traceback, is_told=is_told)

    def _go_on(self, exc: Exception, comes_back: bool = False) -> None:
        """End what Celery began, although it could not tell everybody: the result backend is mostly down then."""
        self._say_unreported(exc)
        state.task_ready(self)
        if self.task.acks_late and not comes_back:
            self.acknowledge()

    def _say_unreported(self, exc: Exception) -> None:
        logger.error("task %s[%s]: its end could not be reported: %r", self.name, self.id, exc)
