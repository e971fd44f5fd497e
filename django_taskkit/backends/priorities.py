"""The number that the broker reads for a priority of Django's, from -100 to 100 and 0 by default.

Redis takes the smallest number first, RabbitMQ the largest; and kombu keeps a list in Redis for a few of them only.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from django_taskkit.backends.interface import DEFAULT_TASK_PRIORITY, TASK_MAX_PRIORITY
from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing.brokers import NUMBERS, PLAIN, REDIS, kind_of

STEPS_OF_REDIS = (0, 3, 6, 9)
"""The numbers that kombu has a list for, where ``broker_transport_options`` has no ``priority_steps``."""


def has_priorities(app: Celery) -> bool:
    """Say whether the broker of ``app`` can tell messages by their priority."""
    return bool(NUMBERS[_kind(app)])


def number_for(app: Celery, celery_task: Any, priority: int, queue: str | None = None) -> int | None:
    """Return what ``apply_async`` is to be given as ``priority``; None: what Celery's settings say.

    Django's default is the broker's number for the default, unless the settings give the task one of its own: without
    any, Redis would take it for the most urgent.
    """
    kind = _kind(app)
    numbers = NUMBERS[kind]
    if not numbers:
        return None
    if priority == DEFAULT_TASK_PRIORITY:
        return None if _is_settled(app, celery_task, queue) else numbers["default"]
    levels = _steps_of_redis(app) if kind == REDIS else range(min(numbers.values()), max(numbers.values()) + 1)
    default = numbers["default"]
    upwards = numbers["critical"] > default
    beyond = sorted(level for level in levels if level != default and (level > default) == (upwards == (priority > 0)))
    if beyond and beyond[0] < default:
        beyond.reverse()  # the nearest to the default first
    if not beyond:
        return default
    return beyond[-(-abs(priority) * len(beyond) // TASK_MAX_PRIORITY) - 1]


def _kind(app: Celery) -> str:
    try:
        return kind_of(app.conf.broker_write_url or app.conf.broker_url)
    except ConfigurationError:  # none that lanes() knows; its library may
        return PLAIN


def _steps_of_redis(app: Celery) -> tuple[int, ...]:
    options = app.conf.broker_transport_options or {}
    return tuple(options.get("priority_steps") or STEPS_OF_REDIS)


def _is_settled(app: Celery, celery_task: Any, queue: str | None) -> bool:
    if celery_task.priority is not None or app.conf.task_default_priority is not None:
        return True
    router: Any = app.amqp.router
    return router.route({"queue": queue} if queue else {}, celery_task.name).get("priority") is not None
