"""Tasks that retry by themselves."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import random
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any, Final, NoReturn

from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import OperationalError

from django_taskkit.backoff import DelayPolicy, Jitter, Uniform
from django_taskkit.base_tasks.application import leave_to_celery
from django_taskkit.base_tasks.autoretry import leave_alone
from django_taskkit.base_tasks.dead_letter import DeadLetterTask
from django_taskkit.base_tasks.policy import RetryPolicy, is_call_error, policy_of
from django_taskkit.envelope import PREVIOUS_DELAY_HEADER, TRANSIT_HEADERS
from django_taskkit.exceptions import ConfigurationError, RetryNotPublishedError

logger = logging.getLogger("django_taskkit")

DEFAULT_BACKOFF: Final = 1.0


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
    """Seconds before the first retry, doubled for each further one; True is 1; False waits
    ``default_retry_delay`` each time; or a policy with a ``delay`` method."""
    retry_backoff_max: float | timedelta = 600
    """The longest delay in seconds."""
    retry_jitter: bool | str | Jitter = "equal"
    """How delays are spread: ``"equal"``, ``"full"`` (or True), ``"decorrelated"``, False, or a policy."""

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

    def __new__(cls, *args: Any, **kwargs: Any) -> BaseTaskWithRetry:
        # Not __init__, which a subclass may override without calling it.
        task = super().__new__(cls)
        body = task.run

        @functools.wraps(body)
        def run(*run_args: Any, **run_kwargs: Any) -> Any:
            return task._run_with_retry(run_args, run_kwargs)

        task.__dict__.update(run=run, _orig_run=body)
        return task

    @functools.cached_property
    def _body(self) -> Callable[..., Any]:
        """The task's own ``run``, found at the first call: ``task_annotations`` may have put another one around it."""
        body: Callable[..., Any] = inspect.getattr_static(type(self), "run").__get__(self, type(self))
        return body

    def _policy(self) -> RetryPolicy:
        return policy_of(self, DEFAULT_BACKOFF)

    def _run_with_retry(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return self._body(*args, **kwargs)
        except (Ignore, Reject, Retry):
            raise
        except BaseException as exc:
            request: Any = self.request
            if request.called_directly:
                raise
            try:
                policy = self._policy()
            except ConfigurationError:
                # A worker refuses to start with such options; they were changed since. The task's own error counts.
                logger.exception("task %s[%s] failed and can't be retried", self.name, request.id)
                raise exc from None
            # Set for every failing run: whoever records the death need not guess.
            request.taskkit_exhausted = getattr(request, "taskkit_exhausted", False)
            if request.taskkit_exhausted or not policy.retries(exc) or is_call_error(self._body, exc, args, kwargs):
                raise
            if policy.max_retries is not None and request.retries >= policy.max_retries:
                request.taskkit_exhausted = True
                raise
            raise self.retry(exc=exc, max_retries=policy.max_retries, **policy.options) from exc

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

        Without ``countdown`` and ``eta`` the delay is the policy's. Delays are whole seconds, at least 1 unless 0.
        ``max_retries`` counts for this run only.

        If the broker can't take the retry, the message that is running goes back to it (``acks_late``, the default
        here); if it has been acknowledged already, the task dies with reason *publish_failed*.
        """
        request: Any = self.request
        retry: Any = super().retry
        if request.called_directly:
            return retry(args, kwargs, exc, throw, eta, countdown, max_retries, **options)
        policy = self._policy()
        limit = max_retries if max_retries is not None else policy.max_retries
        request.taskkit_exhausted = limit is not None and request.retries >= limit
        if eta is None and countdown is None:
            countdown = self._next_delay(policy, options)
        elif eta is not None and self._is_due(eta):
            eta, countdown = None, 0
        try:
            return retry(
                args,
                kwargs,
                exc,
                throw,
                eta,
                _whole_seconds(countdown),
                sys.maxsize if limit is None else limit,
                **options,
            )
        except Reject as rejected:
            self._survive_unpublished_retry(rejected.args[0], exc)

    def _next_delay(self, policy: RetryPolicy, options: dict[str, Any]) -> int:
        previous = getattr(self.request, PREVIOUS_DELAY_HEADER, None)
        delay = policy.delay(self.request.retries, previous=previous, uniform=self.uniform)
        # Without the broker's own, from which RabbitMQ may conclude that the message runs in circles.
        own = {name: value for name, value in (self.request.headers or {}).items() if name not in TRANSIT_HEADERS}
        options["headers"] = {**own, **(options.get("headers") or {}), PREVIOUS_DELAY_HEADER: delay}
        return delay

    def _is_due(self, eta: datetime) -> bool:
        aware = eta if eta.tzinfo else eta.replace(tzinfo=self.app.timezone)
        return (aware - datetime.now(timezone.utc)).total_seconds() < 1

    def _survive_unpublished_retry(self, failure: Any, exc: BaseException | None) -> NoReturn:
        broker_down = isinstance(failure, (OperationalError, OSError))
        logger.error("task %s[%s]: its retry could not be published: %r", self.name, self.request.id, failure)
        if broker_down and self.acks_late:
            time.sleep(self.publish_pause)
            raise Reject(failure, requeue=True)
        raise RetryNotPublishedError(f"the retry could not be published: {failure!r}") from (exc or failure)


def _whole_seconds(countdown: float | None) -> float | None:
    """Round up to whole seconds: RabbitMQ's delayed delivery refuses less than one, and the task would be gone."""
    return None if countdown is None else max(0, math.ceil(countdown))


leave_alone(BaseTaskWithRetry)
