"""Base classes for tasks that must not be lost, and what such tasks say.

Importing this package loads none of it: the app needs to know a verdict when it sees one, and no more, and most
projects use neither budgets nor breakers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskkit.base_tasks.dead_letter import DeadLetterTask
    from django_taskkit.base_tasks.gates.breaker import CircuitBreaker
    from django_taskkit.base_tasks.gates.budget import RetryBudget
    from django_taskkit.base_tasks.policy import RetryPolicy
    from django_taskkit.base_tasks.retry import BaseTaskWithRetry
    from django_taskkit.base_tasks.verdicts import Permanent, Retryable, Snooze

__all__ = [
    "BaseTaskWithRetry",
    "CircuitBreaker",
    "DeadLetterTask",
    "Permanent",
    "RetryBudget",
    "RetryPolicy",
    "Retryable",
    "Snooze",
]

_HOMES = {
    "BaseTaskWithRetry": "retry",
    "CircuitBreaker": "gates.breaker",
    "DeadLetterTask": "dead_letter",
    "Permanent": "verdicts",
    "RetryBudget": "gates.budget",
    "RetryPolicy": "policy",
    "Retryable": "verdicts",
    "Snooze": "verdicts",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
