"""What a task's retry options mean, as one object that decides."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import TracebackType
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from django_taskkit.backoff import Backoff, DelayPolicy, NoJitter, Uniform, jitter_of
from django_taskkit.exceptions import ConfigurationError

ExceptionClasses = tuple[type[BaseException], ...]


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """Decides whether a failed run is repeated, and when. Built from a task's options by :func:`policy_of`."""

    autoretry_for: ExceptionClasses
    dont_autoretry_for: ExceptionClasses
    max_retries: int | None
    """None: no limit."""
    backoff: DelayPolicy
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options for the retry's ``apply_async``, from ``retry_kwargs``."""

    def retries(self, exc: BaseException) -> bool:
        """Say whether a run that raised ``exc`` may be repeated.

        A soft time limit is retried only where it is named: ``Exception`` is written to mean "the task failed",
        and a task that was too slow once is mostly too slow again.
        """
        if isinstance(exc, self.dont_autoretry_for) or not isinstance(exc, self.autoretry_for):
            return False
        if isinstance(exc, SoftTimeLimitExceeded):
            return any(issubclass(named, SoftTimeLimitExceeded) for named in self.autoretry_for)
        return True

    def delay(self, retry: int, *, previous: float | None = None, uniform: Uniform = random.uniform) -> int:
        """Return whole seconds before retry number ``retry``, counted from 0."""
        return self.backoff.delay(retry, previous=previous, uniform=uniform)


def policy_of(task: Any, default_backoff: object) -> RetryPolicy:
    """Read the retry options of ``task``, which are Celery's, and say what is wrong with them.

    Args:
        task: a task, or its class.
        default_backoff: the ``retry_backoff`` of the base class; a ``countdown`` in ``retry_kwargs`` beats this one,
            and yields to one that the task sets itself, as in Celery.

    Raises:
        ConfigurationError: an option makes no sense; the sentence names the task, the option and the remedy.
    """
    options = _option(task, "retry_kwargs", _mapping)
    countdown = options.pop("countdown", None)
    limit = options.pop("max_retries", task.max_retries)
    return RetryPolicy(
        autoretry_for=_option(task, "autoretry_for", _classes),
        dont_autoretry_for=_option(task, "dont_autoretry_for", _classes),
        max_retries=_checked(task, "max_retries", limit, _limit),
        backoff=_backoff(task, countdown, default_backoff),
        options=options,
    )


def is_call_error(run: Callable[..., Any], exc: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Say whether ``exc`` means that the task can't be called with these arguments, now or ever.

    The arguments don't fit its signature, or are not what its models ask for (``pydantic=True``), and the error came up
    before a line of it ran: a decorator may well add arguments that the call lacks.
    """
    if type(exc).__name__ == "ValidationError" and type(exc).__module__.startswith("pydantic"):
        return not _was_entered(run, exc.__traceback__)
    if not isinstance(exc, TypeError):
        return False
    try:
        inspect.signature(run).bind(*args, **kwargs)
    except TypeError:
        return not _was_entered(run, exc.__traceback__)
    except ValueError:  # no signature to be had
        return False
    return False


def _was_entered(run: Callable[..., Any], tb: TracebackType | None) -> bool:
    code = getattr(inspect.unwrap(run), "__code__", None)
    while tb is not None:
        if tb.tb_frame.f_code is code:
            return True
        tb = tb.tb_next
    return False


def _backoff(task: Any, countdown: Any, default_backoff: object) -> DelayPolicy:
    chosen = task.retry_backoff
    if isinstance(chosen, DelayPolicy) and not isinstance(chosen, type):
        return chosen
    jitter = _option(task, "retry_jitter", jitter_of)
    cap = _option(task, "retry_backoff_max", _seconds)
    if countdown is not None and (chosen is False or chosen is default_backoff):
        return _constant(task, "retry_kwargs['countdown']", countdown)
    if chosen is False or chosen is None:
        return _constant(task, "default_retry_delay", task.default_retry_delay)
    base = 1.0 if chosen is True or chosen is default_backoff else _checked(task, "retry_backoff", chosen, _seconds)
    if base == 0:  # Celery reads 0 as False
        return _constant(task, "default_retry_delay", task.default_retry_delay)
    return _build(task, "retry_backoff and retry_backoff_max", base=base, cap=cap, jitter=jitter)


def _constant(task: Any, name: str, value: Any) -> Backoff:
    seconds = max(1.0, float(round(_checked(task, name, value, _seconds))))
    return _build(task, name, base=seconds, factor=1, cap=seconds, jitter=NoJitter())


def _build(task: Any, name: str, **numbers: Any) -> Backoff:
    try:
        return Backoff(**numbers)
    except ValueError as exc:
        raise ConfigurationError(f"{task.name}: {name}: {exc}") from None


def _option(task: Any, name: str, read: Callable[[Any], Any]) -> Any:
    return _checked(task, name, getattr(task, name), read)


def _checked(task: Any, name: str, value: Any, read: Callable[[Any], Any]) -> Any:
    try:
        return read(value)
    except ValueError as exc:
        raise ConfigurationError(f"{task.name}: {name}: {exc}") from None


def _classes(value: Any) -> ExceptionClasses:
    classes = (value,) if isinstance(value, type) else value
    try:
        classes = tuple(classes or ())
    except TypeError:
        classes = (value,)
    for item in classes:
        if not (isinstance(item, type) and issubclass(item, BaseException)):
            raise ValueError(f"{item!r} is not an exception class; give exception classes, for example (OSError,)")
    return classes


def _limit(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{value!r} makes no sense; give a whole number of retries, 0 or more, or None for no limit")


def _seconds(value: Any) -> float:
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    raise ValueError(f"{value!r} makes no sense; give seconds, 0 or more, or a timedelta")


def _mapping(value: Any) -> dict[str, Any]:
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    raise ValueError(f"{value!r} makes no sense; give a dict of options, for example {{'queue': 'retries'}}")
