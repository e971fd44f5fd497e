"""Where results are kept, for how long, and what a task does while they can't be stored."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from celery import Celery
from django.apps import apps
from django.core.checks import CheckMessage

from django_taskkit.checks.configuration import number, settings_of, written
from django_taskkit.checks.registration import error, warning


def kind_of(app: Celery) -> str:
    """Return the beginning of the result backend's URL, ``redis`` for all of Redis'; empty if there is none."""
    url: Any = app.backend_cls or settings_of(app).result_backend
    if not isinstance(url, str) or url.startswith("disabled"):
        return ""
    scheme = url.partition(":")[0].partition("+")[0]
    return "redis" if scheme in ("redis", "rediss", "sentinel", "valkey") else scheme


def without_its_app(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E017: results go to Django's database, and the app that has the tables is not installed."""
    if kind_of(app) == "django-db" and not apps.is_installed("django_celery_results"):
        yield error(
            "E017",
            f"{written(app, 'result_backend')} is 'django-db', and django_celery_results is not in INSTALLED_APPS: no "
            "result can be stored.",
            'Add "django_celery_results" to INSTALLED_APPS and run migrate.',
        )


def half_open_connections(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W041: nothing notices that the network has dropped a connection to the results' Redis."""
    settings = settings_of(app)
    keys = ("redis_socket_keepalive", "redis_backend_health_check_interval")
    if kind_of(app) == "redis" and not any(settings.get(key) for key in keys):
        yield warning(
            "W041",
            "A connection to the Redis of the results that the network has dropped is noticed after minutes only: a "
            "task, or a request that waits for its result, hangs as long.",
            f"Set {written(app, keys[0])} = True and {written(app, keys[1])} = 25.",
        )


def kept_for_ever(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W042: results are never deleted."""
    settings, kind = settings_of(app), kind_of(app)
    name = written(app, "result_expires")
    if kind not in ("redis", "django-db", "db"):
        return
    if not (number(settings.result_expires) if settings.result_expires is not None else None):
        yield warning(
            "W042",
            f"{name} is {settings.result_expires!r}: results are never deleted, and fill "
            f"{'Redis' if kind == 'redis' else 'the database'}.",
            f"Set {name} to the seconds for which somebody may ask for a result, such as 86400.",
        )
    elif kind != "redis" and not settings.beat_schedule and _is_usual_beat(settings.beat_scheduler):
        yield warning(
            "W042",
            "Results in a database are deleted by a task that beat sends (celery.backend_cleanup), and nothing here "
            "says that the project runs a beat.",
            "Run `celery beat`; or `celery -A your_project call celery.backend_cleanup` each day, and silence "
            "taskkit.W042.",
        )


def _is_usual_beat(scheduler: Any) -> bool:
    return bool(scheduler == "celery.beat:PersistentScheduler")


def retried_for_ever(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W043: while results can't be stored, no task ends."""
    settings = settings_of(app)
    most = settings.result_backend_max_retries
    if kind_of(app) and settings.result_backend_always_retry and (most is None or most == math.inf):
        yield warning(
            "W043",
            f"{written(app, 'result_backend_always_retry')} is on without an end: while the result backend is away, "
            "every task that is done waits for it, and all workers stand still.",
            f"Set {written(app, 'result_backend_max_retries')} = 10.",
        )
