"""By which policies the failures of a task are retried, also where they are Celery's own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.options import GATES
from django_taskkit.base_tasks.policy import RetryPolicy
from django_taskkit.base_tasks.rules import RetryRules, Treatment, rules_of
from django_taskkit.base_tasks.survival import Scheduled
from django_taskkit.base_tasks.verdicts import seconds_of
from django_taskkit.management.celery_autoretry import autoretry_of


@dataclass(frozen=True)
class Plan:
    """What becomes of some failures of a task."""

    of: str
    """The exception class with its module, or ``default``."""
    title: str
    policy: Scheduled | None
    """None: they are never retried."""
    others: tuple[str, ...] = ()
    """What else the task has that decides about retries, and isn't known before a run."""


def plans_of(task: Any) -> list[Plan]:
    """Return the plans of ``task``, its default first; none if nothing retries it by itself.

    Raises:
        ConfigurationError: its options make no sense.
    """
    if not isinstance(task, BaseTaskWithRetry):
        policy = autoretry_of(task)
        return [] if policy is None else [Plan("default", f"{_named(task)} (Celery's own autoretry)", policy)]
    rules = rules_of(task)
    others = _others(task)
    kinds = _named(task) if rules.autoretry_for else "nothing but Retryable and self.retry()"
    return [
        Plan("default", kinds, _within(rules, rules.default), others),
        *(
            Plan(name, name, _within(rules, treatment), others)
            for name, treatment in ((_path(kind), treatment) for kind, treatment in rules.policies.items())
        ),
    ]


def plan_for(task: Any, exc: BaseException) -> Plan | None:
    """Return what becomes of a run of ``task`` that raised ``exc``; None if nothing retries the task by itself.

    Raises:
        ConfigurationError: its options make no sense.
    """
    title = _path(type(exc))
    if isinstance(task, BaseTaskWithRetry):
        rules = rules_of(task)
        return Plan(title, title, _within(rules, rules.policy_for(exc)))
    policy = autoretry_of(task)
    if policy is None:
        return None
    retried = isinstance(exc, tuple(task.autoretry_for)) and not isinstance(
        exc, tuple(getattr(task, "dont_autoretry_for", ()))
    )
    return Plan(title, title, policy if retried else None)


def remedy_for(task: Any) -> str:
    """Say what to do about a task that nothing retries by itself."""
    return (
        f"{task.name} is not retried by itself: it has no autoretry_for, and no base class that retries. Give it "
        f"base=BaseTaskWithRetry (from django_taskkit.base_tasks)."
    )


def _within(rules: RetryRules, treatment: Treatment | None) -> RetryPolicy | None:
    """Return the policy of ``treatment``, with the deadline that the task sets for all of them if it is the earlier."""
    if not isinstance(treatment, RetryPolicy):
        return None
    limits = [seconds_of(limit) for limit in (rules.retry_for, treatment.retry_for) if limit is not None]
    return dataclasses.replace(treatment, retry_for=min(limits, default=None))


def _others(task: Any) -> tuple[str, ...]:
    own = ["retry_in()"] if type(task).retry_in is not BaseTaskWithRetry.retry_in else []
    return (*own, *(name for name in GATES if getattr(task, name, None) is not None))


def _named(task: Any) -> str:
    kinds = task.autoretry_for
    return ", ".join(_path(kind) for kind in ((kinds,) if isinstance(kinds, type) else kinds))


def _path(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
