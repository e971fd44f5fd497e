"""What a task's retry options mean, read once for each failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded

from django_taskkit.backoff import Backoff, DelayPolicy, NoJitter, jitter_of
from django_taskkit.base_tasks.policy import RetryPolicy, limit_of, seconds_or_none
from django_taskkit.base_tasks.verdicts import Permanent, seconds_of
from django_taskkit.exceptions import ConfigurationError

ExceptionClasses = tuple[type[BaseException], ...]
Treatment = RetryPolicy | type[Permanent]
"""What ``retry_policies`` may say of a class of exceptions."""

DEFAULT_BACKOFF = 1.0
"""The ``retry_backoff`` of the base class; known by identity, since a task may well say 1.0 itself."""

DEFAULT = ""
"""The name under which retries are counted that no entry of ``retry_policies`` has caused."""


@dataclass(frozen=True, kw_only=True)
class RetryRules:
    """Says which failures of a task are retried, and by which policy. Read from its options by :func:`rules_of`."""

    autoretry_for: ExceptionClasses
    dont_autoretry_for: ExceptionClasses
    default: RetryPolicy
    policies: Mapping[type[BaseException], Treatment] = field(default_factory=dict)
    retry_for: float | None = None
    """Seconds from the first failure until which a retry may start, by whichever policy; None: no deadline."""
    retry_after_max: float = 86_400.0
    """Seconds that an error may ask for at most."""
    retry_queue: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options for the retry's ``apply_async``, from ``retry_kwargs``."""

    def match(self, exc: BaseException) -> tuple[str, Treatment | None]:
        """Return what becomes of ``exc``, None if it is not retried, and the name under which its retries are counted.

        The most specific class wins, also over ``dont_autoretry_for``. A soft time limit is retried only where it is
        named: ``Exception`` is written to mean "the task failed", and a task that was too slow once is mostly too slow
        again.
        """
        named = nearest(exc, (*self.dont_autoretry_for, *self.policies))
        if named is not None and named not in self.dont_autoretry_for and self._reaches(named, exc):
            return f"{named.__module__}.{named.__qualname__}", self.policies[named]
        if isinstance(exc, self.dont_autoretry_for) or not isinstance(exc, self.autoretry_for):
            return DEFAULT, None
        if not any(self._reaches(named, exc) for named in self.autoretry_for):
            return DEFAULT, None
        return DEFAULT, self.default

    def policy_for(self, exc: BaseException) -> Treatment | None:
        """Return the policy for a run that raised ``exc``, ``Permanent`` if it is never retried, None if not."""
        return self.match(exc)[1]

    @staticmethod
    def _reaches(named: type[BaseException], exc: BaseException) -> bool:
        return not isinstance(exc, SoftTimeLimitExceeded) or issubclass(named, SoftTimeLimitExceeded)


def nearest(exc: BaseException, classes: tuple[type[BaseException], ...]) -> type[BaseException] | None:
    """Return which of ``classes`` says most about ``exc``; of two that stand equally near, the one named first."""
    kinds = type(exc).__mro__
    found = [named for named in classes if isinstance(exc, named)]
    return min(found, key=lambda named: kinds.index(named) if named in kinds else len(kinds), default=None)


def rules_of(task: Any) -> RetryRules:
    """Read the retry options of ``task``, and say what is wrong with them.

    Args:
        task: a task, or its class.

    Raises:
        ConfigurationError: an option makes no sense; the sentence names the task, the option and the remedy.
    """
    options = _option(task, "retry_kwargs", _further_options)
    countdown = options.pop("countdown", None)
    limit = _checked(task, "max_retries", options.pop("max_retries", task.max_retries), limit_of)
    retry_for = _option(task, "retry_for", seconds_or_none)
    return RetryRules(
        autoretry_for=_option(task, "autoretry_for", _classes),
        dont_autoretry_for=_option(task, "dont_autoretry_for", _classes),
        default=_default_policy(task, countdown, max_retries=limit, retry_for=retry_for),
        policies=_policies(task),
        retry_for=retry_for,
        retry_after_max=_option(task, "retry_after_max", seconds_of),
        retry_queue=_option(task, "retry_queue", _name),
        options=options,
    )


def _default_policy(task: Any, countdown: Any, **ends: Any) -> RetryPolicy:
    chosen = task.retry_backoff
    if isinstance(chosen, DelayPolicy) and not isinstance(chosen, type):
        return _build(task, "retry_backoff", backoff=chosen, **ends)
    jitter = _option(task, "retry_jitter", jitter_of)
    cap = _option(task, "retry_backoff_max", seconds_of)
    floor = task.retry_backoff_min
    if countdown is not None and (chosen is False or chosen is DEFAULT_BACKOFF):
        return _constant(task, "retry_kwargs['countdown']", countdown, **ends)
    if chosen is False or chosen is None or (chosen is DEFAULT_BACKOFF and _says(task, "default_retry_delay")):
        return _constant(task, "default_retry_delay", task.default_retry_delay, **ends)
    base = 1.0 if chosen is True or chosen is DEFAULT_BACKOFF else _checked(task, "retry_backoff", chosen, seconds_of)
    if base == 0:  # Celery reads 0 as False
        return _constant(task, "default_retry_delay", task.default_retry_delay, **ends)
    names = "retry_backoff, retry_backoff_min and retry_backoff_max"
    # A cap below the base is no error here: it is none in Celery, from which such options come.
    return _build(task, names, backoff=min(base, cap) or base, cap=cap, floor=floor, jitter=jitter, **ends)


def _says(task: Any, option: str) -> bool:
    """Say whether somebody has given ``option`` to ``task`` or to a class of it, rather than Celery."""
    cls = task if isinstance(task, type) else task.__class__
    owners = (*(() if cls is task else (task,)), *cls.__mro__)
    return next(owner for owner in owners if option in vars(owner)) is not Task


def _constant(task: Any, name: str, value: Any, **ends: Any) -> RetryPolicy:
    seconds = max(1.0, float(round(_checked(task, name, value, seconds_of))))
    constant = Backoff(base=seconds, factor=1, cap=seconds, jitter=NoJitter())
    return _build(task, name, backoff=constant, **ends)


def _policies(task: Any) -> dict[type[BaseException], Treatment]:
    """Merge the ``retry_policies`` of all classes of ``task``: a class adds to its bases, and overrules them."""
    merged: dict[type[BaseException], Treatment] = {}
    cls = task if isinstance(task, type) else task.__class__  # of the task, if this is Celery's proxy of one
    owners = (*reversed(cls.__mro__), *(() if cls is task else (task,)))
    for owner in owners:
        said = vars(owner).get("retry_policies")
        for kind, treatment in _checked(task, "retry_policies", said, _mapping).items():
            name = _checked(task, "retry_policies", kind, _class).__name__
            merged[kind] = _checked(task, f"retry_policies[{name}]", treatment, _treatment)
    return merged


def _build(task: Any, name: str, **options: Any) -> RetryPolicy:
    try:
        return RetryPolicy(**options)
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
    return tuple(map(_class, classes))


def _class(value: Any) -> type[BaseException]:
    if isinstance(value, type) and issubclass(value, BaseException):
        return value
    raise ValueError(f"{value!r} is not an exception class; give exception classes, for example (OSError,)")


def _treatment(value: Any) -> Treatment:
    if isinstance(value, RetryPolicy) or (isinstance(value, type) and issubclass(value, Permanent)):
        return value
    raise ValueError(f"{value!r} makes no sense; give a RetryPolicy(...), or Permanent for what is never retried")


def _name(value: Any) -> str | None:
    if value is None or (isinstance(value, str) and value):
        return value
    raise ValueError(f"{value!r} makes no sense; give the name of a queue, or None")


def _further_options(value: Any) -> dict[Any, Any]:
    options = _mapping(value)
    for name in ("exc", "throw", "why"):
        if name in options:
            raise ValueError(f"{name!r} is nothing that a message could have; take it out")
    return options


def _mapping(value: Any) -> dict[Any, Any]:
    if value is None or isinstance(value, Mapping):
        return dict(value or {})
    raise ValueError(f"{value!r} makes no sense; give a dict")
