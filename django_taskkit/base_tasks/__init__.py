"""Base classes for tasks that must not be lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django_taskkit.base_tasks.dead_letter import DeadLetterTask
from django_taskkit.base_tasks.policy import RetryPolicy
from django_taskkit.base_tasks.retry import BaseTaskWithRetry
from django_taskkit.base_tasks.verdicts import Permanent, Retryable, Snooze

if TYPE_CHECKING:
    from django_taskkit.base_tasks.gates.breaker import CircuitBreaker
    from django_taskkit.base_tasks.gates.budget import RetryBudget

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


def __getattr__(name: str) -> Any:
    # Most projects use neither, and should not pay for their import.
    if name == "CircuitBreaker":
        from django_taskkit.base_tasks.gates.breaker import CircuitBreaker

        return CircuitBreaker
    if name == "RetryBudget":
        from django_taskkit.base_tasks.gates.budget import RetryBudget

        return RetryBudget
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
