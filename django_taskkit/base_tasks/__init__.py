"""Base classes for tasks that must not be lost."""

from __future__ import annotations

from django_taskkit.base_tasks.dead_letter import DeadLetterTask
from django_taskkit.base_tasks.policy import RetryPolicy
from django_taskkit.base_tasks.retry import BaseTaskWithRetry

__all__ = ["BaseTaskWithRetry", "DeadLetterTask", "RetryPolicy"]
