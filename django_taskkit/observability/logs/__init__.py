"""Log lines that say which task, and which web request, they belong to.

In ``LOGGING``: ``{"()": "django_taskkit.observability.logs.JSONFormatter"}`` as a formatter, or
``{"()": "django_taskkit.observability.logs.TaskContextFilter"}`` as a filter of a handler that has another formatter.
Django reads ``LOGGING`` before it loads its apps, so nothing in this package imports a model.
"""

from __future__ import annotations

from django_taskkit.observability.logs.carrying import carried
from django_taskkit.observability.logs.filter import TaskContextFilter
from django_taskkit.observability.logs.formatter import JSONFormatter
from django_taskkit.observability.logs.in_worker import keep_django_logging

__all__ = ["JSONFormatter", "TaskContextFilter", "carried", "keep_django_logging"]
