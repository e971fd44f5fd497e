"""What a worker says of a task whose own exception is not what happened to it, and why such a message died."""

from __future__ import annotations

from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.exceptions import Reject

from django_taskkit.dlq.models import Reason
from django_taskkit.exceptions import TaskkitError
from django_taskkit.worker.delivery_limit import DeliveryLimitError


class OutOfMemoryError(TaskkitError):
    """A task raised MemoryError: its own failure, and no reason to end the worker."""


class ForeignError(TaskkitError):
    """A task failed because another one, whose result it waited for, was lost or timed out."""


class CancelledError(TaskkitError):
    """A worker was shut down cold while a task ran whose message had been acknowledged already."""


def reason_of(exc: BaseException) -> Reason:
    """Tell what ended a message whose worker reports ``exc``."""
    if isinstance(exc, DeliveryLimitError):
        return Reason.DELIVERY_LIMIT
    if isinstance(exc, TimeLimitExceeded):
        return Reason.TIME_LIMIT
    if isinstance(exc, WorkerLostError):
        return Reason.WORKER_LOST
    return Reason.REJECTED if isinstance(exc, Reject) else Reason.EXCEPTION
