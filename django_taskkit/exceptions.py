"""The errors that django-taskkit raises on purpose."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured


class TaskkitError(Exception):
    """Something that django-taskkit refuses or could not do."""


class ConfigurationError(TaskkitError, ImproperlyConfigured):
    """A setting or a retry option makes no sense; the message names the value and the remedy."""


class NoAppError(ConfigurationError):
    """This process has no Celery app of the project's, only the one that Celery makes where there is none."""


class RetryNotPublishedError(TaskkitError):
    """A retry could not be handed to the broker, and the message can't be given back to it either."""


class PublishError(TaskkitError):
    """The broker did not take a message."""


class BrokerUnreachableError(PublishError):
    """No connection to the broker, or no answer in time, so trying the next message is pointless."""


class NoQueueError(PublishError):
    """The broker has no queue that the message would reach."""


class StoreError(TaskkitError):
    """What workers share (budgets, breakers, idempotency keys, who makes a result) can't be read or written."""


class ValueNotKeptError(TaskkitError):
    """A cache does not keep the value that a task returned: it is too large for it, or can't be pickled."""


class UnsafeArgumentError(TaskkitError, TypeError):
    """An argument of a task is something that should not travel in a message; the message names it and the remedy."""
