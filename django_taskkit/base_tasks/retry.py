"""Tasks that retry by themselves."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Reject
from kombu.exceptions import OperationalError

from django_taskkit.backoff import DelayPolicy, Jitter, Uniform
from django_taskkit.base_tasks.application import leave_to_celery
from django_taskkit.base_tasks.attempt import attempt, failure_of, give_up, is_patient, leave, wait_instead
from django_taskkit.base_tasks.autoretry import leave_alone
from django_taskkit.base_tasks.dead_letter import DeadLetterTask
from django_taskkit.base_tasks.decision import Again, Dead, Said, decide_retry
from django_taskkit.base_tasks.functions import FUNCTIONS, unbind
from django_taskkit.base_tasks.gates import Outcome
from django_taskkit.base_tasks.next_message import headers_of, home_and_lane
from django_taskkit.base_tasks.policy import RetryPolicy
from django_taskkit.base_tasks.rules import DEFAULT_BACKOFF, rules_of
from django_taskkit.base_tasks.verdicts import Permanent
from django_taskkit.exceptions import RetryNotPublishedError
from django_taskkit.outbox import UNTIL_DUE

if TYPE_CHECKING:
    from django_taskkit.base_tasks.gates.breaker import CircuitBreaker
    from django_taskkit.base_tasks.gates.budget import RetryBudget

logger = logging.getLogger("django_taskkit")


class BaseTaskWithRetry(DeadLetterTask):
    """A task that is retried when it fails, with growing, spread-out delays, and dies with a dead letter.

    The options are Celery's, by the same names, on the class, in the decorator or in ``task_annotations``::

        @shared_task(base=BaseTaskWithRetry, autoretry_for=(ConnectionError,), max_retries=8)
        def send_receipt(order_id): ...

    ``self.retry()`` without ``countdown`` or ``eta`` waits as long as the options say. Never retried are calls whose
    arguments don't fit the task, ``Ignore`` and ``Reject``, and the soft time limit unless ``autoretry_for`` names it.

    As the task class of an application it retries only where ``autoretry_for`` is set: on a task, on a class, or in
    ``task_annotations``.
    """

    abstract = True

    autoretry_for: tuple[type[BaseException], ...] | type[BaseException] = (Exception,)
    """Exceptions that are retried."""
    dont_autoretry_for: tuple[type[BaseException], ...] | type[BaseException] = ()
    """Exceptions that are not, even if ``autoretry_for`` has them."""
    max_retries: int | None = 5
    """Retries before the task dies; None for no limit."""
    retry_kwargs: dict[str, Any] | None = None
    """Options of the retry's ``apply_async``; ``max_retries`` and ``countdown`` in it work as in Celery, and
    ``max_retries: None`` means no limit."""
    retry_backoff: bool | float | timedelta | DelayPolicy = DEFAULT_BACKOFF
    """Seconds before the first retry, doubled for each further one; True is 1; False, or nothing where
    ``default_retry_delay`` is given, waits that long each time; or a policy with a ``delay`` method."""
    retry_backoff_min: int = 1
    """The shortest delay in whole seconds."""
    retry_backoff_max: float | timedelta = 600
    """The longest delay in seconds."""
    retry_jitter: bool | str | Jitter = "equal"
    """How delays are spread: ``"equal"``, ``"full"`` (or True), ``"decorrelated"``, False, or a policy."""

    retry_for: float | timedelta | None = None
    """Seconds, or a timedelta, from the first failure until which a retry may start; None: no deadline."""
    retry_policies: Mapping[type[BaseException], RetryPolicy | type[Permanent]] = {}
    """Policies for kinds of exceptions, retried whatever ``autoretry_for`` says; ``Permanent`` for what never is. The
    most specific class wins. A subclass adds to those of its bases."""
    retry_after_max: float | timedelta = 86_400
    """Seconds that an error may ask for at most, by ``Retry-After`` and the like."""
    retry_queue: str | None = None
    """The queue that retries go to; None: where the message came from."""

    retry_budget: str | RetryBudget | None = None
    """What limits the retries of all tasks that name the same dependency."""
    breaker: str | CircuitBreaker | None = None
    """What keeps all tasks that name the same dependency from running while it is down."""
    idempotency_key: str | Sequence[str] | Callable[..., str | None] | None = None
    """Names of arguments, or a function of them that returns a text: the same key is not run twice."""
    idempotency_window: float | timedelta | None = timedelta(days=1)
    """Seconds, or a timedelta, after a success in which the same key is answered with its result; None: none."""
    idempotency_lease: float | timedelta = 60
    """Seconds after which a key is free if nobody has heard of the process that runs it."""
    idempotency_without_store: str = "wait"
    """What becomes of a task while the shared store is out of reach: ``"wait"``; or ``"run"``, perhaps twice."""

    publish_pause: float = 1.0
    """Seconds to wait before a message whose retry could not be published is given back to the broker, so that
    an outage isn't spent running the task over and over."""

    uniform: Uniform = staticmethod(random.uniform)
    """Where the jitter's randomness comes from."""

    # Celery notes ``retry(max_retries=)`` here, on the object that all runs in the process share, and there it stays.
    override_max_retries = property(lambda self: None, lambda self, value: None)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        leave_to_celery(cls, BaseTaskWithRetry, autoretry_for=())
        for name in FUNCTIONS:
            unbind(cls, name)

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseTaskWithRetry:
        # Not __init__, which a subclass may override without calling it.
        task = super().__new__(cls)
        body = task.run

        @functools.wraps(body)
        def run(*run_args: Any, **run_kwargs: Any) -> Any:
            return attempt(task, run_args, run_kwargs)

        task.__dict__.update(run=run, _orig_run=body)
        return task

    @functools.cached_property
    def _body(self) -> Callable[..., Any]:
        """The task's own ``run``, found at the first call: ``task_annotations`` may have put another one around it."""
        body: Callable[..., Any] = inspect.getattr_static(type(self), "run").__get__(self, type(self))
        return body

    def retry_in(self, exc: BaseException, attempt: int) -> Said:
        """Say when a run is repeated that failed by ``exc``, which is one of those that are retried.

        Args:
            exc: what the run raised.
            attempt: which run that was, counted from 1.

        Returns:
            Seconds or a timedelta; ``Permanent("why")``, ``Snooze(seconds)`` or ``Retryable(delay=…)``; None, the
            default, if the error and the policy shall decide.
        """
        return None

    def on_retries_exhausted(self, exc: BaseException, attempt: int) -> None:
        """Called when a run fails that would be repeated if retries, or time, were left; what it raises is logged.

        Args:
            exc: what the last run raised.
            attempt: which run that was, counted from 1.
        """

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> Any:
        """Run the task again later, as :meth:`celery.app.task.Task.retry`, and lose nothing on the way.

        Without ``countdown`` and ``eta`` the delay is what ``exc`` asks for, or else the policy's. Delays are whole
        seconds, at least 1 unless 0. ``max_retries`` counts for this run only. A retry that would come after
        ``retry_for``, or when the message has expired, is one too many.

        If the broker can't take the retry, the message that is running goes back to it (``acks_late``, the default
        here); if it has been acknowledged already, the task dies with reason *publish_failed*.
        """
        request: Any = self.request
        retry: Any = super().retry
        if request.called_directly:
            return retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        if eta is not None and self._seconds_until(eta) < 1:
            eta, countdown = None, 0
        asked = countdown if eta is None else self._seconds_until(eta)
        decision = decide_retry(
            rules_of(self),
            failure_of(self, exc, expires=options.get("expires")),
            delay=asked,
            max_retries=max_retries,
            uniform=self.uniform,
        )
        if isinstance(decision, Dead):
            if (delayed := wait_instead(self, decision)) is not None:
                again = Again(delay=delayed.seconds, counted=False)
                return self._run_again(
                    again, args=args, kwargs=kwargs, exc=exc, throw=throw, why=delayed.why, **options
                )
            try:
                return retry(args, kwargs, exc, throw, eta, 0, request.retries, **options)
            except BaseException as last:  # exc, or Celery's MaxRetriesExceededError
                give_up(self, decision, last)
                raise
        return self._run_again(decision, args=args, kwargs=kwargs, exc=exc, throw=throw, eta=eta, **options)

    def _run_again(
        self,
        again: Again,
        *,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = False,
        eta: datetime | None = None,
        why: str = "",
        **options: Any,
    ) -> Any:
        """Send the message that runs the task again; return, or raise, the Retry by which this run ends.

        Args:
            why: what has put it off, if something has.
        """
        request: Any = self.request
        retry: Any = super().retry
        countdown = again.delay
        outcome = Outcome.RETRIED if again.counted else Outcome.SNOOZED
        if not why and (delayed := leave(request, outcome, delay=again.delay, uniform=self.uniform)) is not None:
            countdown, why = delayed
            eta, countdown = None, max(again.delay, countdown)
            again = replace(again, counted=again.counted and not is_patient(request))
        if why:
            options.setdefault("outbox", UNTIL_DUE)
            logger.info("task %s[%s] waits %d s: %s", self.name, request.id, countdown, why)
        options["headers"] = headers_of(request, again, waits_for=why, given=options.get("headers"))
        if again.counted:
            home_and_lane(self, options)
        request.taskkit_uncounted = not again.counted
        try:
            return retry(args, kwargs, exc, throw, eta, None if eta else math.ceil(countdown), sys.maxsize, **options)
        except Reject as rejected:
            self._survive_unpublished_retry(rejected.args[0], exc)

    def signature_from_request(self, request: Any = None, *args: Any, **options: Any) -> Any:
        """As :meth:`celery.app.task.Task.signature_from_request`, but what is put off has used up no retry."""
        current: Any = self.request if request is None else request
        if "retries" in options and getattr(current, "taskkit_uncounted", False):
            options["retries"] = current.retries
        return super().signature_from_request(request, *args, **options)

    def _seconds_until(self, eta: datetime) -> float:
        aware = eta if eta.tzinfo else eta.replace(tzinfo=self.app.timezone)
        return aware.timestamp() - time.time()

    def _survive_unpublished_retry(self, failure: Any, exc: BaseException | None) -> NoReturn:
        broker_down = isinstance(failure, (OperationalError, OSError))
        logger.error("task %s[%s]: its retry could not be published: %r", self.name, self.request.id, failure)
        if broker_down and self.acks_late:
            time.sleep(self.publish_pause)
            raise Reject(failure, requeue=True)
        raise RetryNotPublishedError(f"the retry could not be published: {failure!r}") from (exc or failure)


leave_alone(BaseTaskWithRetry)
