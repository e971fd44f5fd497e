"""taskkit.E005, and W002 to W004: how the broker is used can lose messages, or run them twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery
from django.core import checks

from django_taskkit.checks.configuration import number, own_tasks
from django_taskkit.checks.registration import SPEAKING
from django_taskkit.outbox.delays import VISIBILITY_TIMEOUT


def broker(app: Celery) -> Iterator[checks.CheckMessage]:
    """taskkit.E005, W002, W003 and W004."""
    options = app.conf.broker_transport_options or {}
    found: list[checks.CheckMessage] = []
    reads, writes = _transport(app.connection_for_read, found), _transport(app.connection_for_write, found)
    yield from found
    if reads is not None and reads.driver_type == "redis":
        if not _is_ours(reads):
            yield checks.Warning(
                "Celery fetches from Redis in two steps: a worker killed between them takes a message along.",
                hint='Set CELERY_BROKER_TRANSPORT = "django_taskkit.transports.redis:Transport" in the settings; '
                "without the prefix CELERY_, its name is broker_transport.",
                id="taskkit.W002",
            )
        yield from _visibility(app, number(options.get("visibility_timeout")) or VISIBILITY_TIMEOUT["redis"])
    if writes is not None and writes.driver_type == "amqp" and options.get("confirm_publish", True) is False:
        yield checks.Warning(
            "confirm_publish is off: RabbitMQ reports success for messages that never arrive.",
            hint="Remove confirm_publish from broker_transport_options; django-taskkit turns it on.",
            id="taskkit.W004",
        )


def _visibility(app: Celery, visible: float) -> Iterator[checks.CheckMessage]:
    """taskkit.W003, for each task with such a limit of its own, and once for the setting that others have theirs of."""
    beyond = (
        f"is beyond Redis' visibility_timeout of {visible:g} s: another worker gets the message while it still runs."
    )
    hint = "Raise visibility_timeout in broker_transport_options above the longest time limit, or lower the limit."
    common = app.conf.task_time_limit
    limits = [(name, task.time_limit or common) for name, task in own_tasks(app) if task.acks_late]
    too_long = [(name, limit) for name, limit in limits if (number(limit) or 0) >= visible]
    if any(limit == common for _, limit in too_long):
        yield checks.Warning(f"The task_time_limit of {common} s {beyond}", hint=hint, id="taskkit.W003")
    for name, limit in too_long:
        if limit != common:
            yield checks.Warning(f"Its time_limit of {limit} s {beyond}", hint=hint, obj=name, id="taskkit.W003")


def _transport(connection: Callable[[], Any], found: list[checks.CheckMessage]) -> Any:
    """Return the class of the transport; None, and taskkit.E005 in ``found``, if it can't be loaded."""
    try:
        return connection().get_transport_cls()
    except Exception as exc:
        # kombu raises a KeyError that names a transport; what cuts a URL up names a part of it.
        text = str(exc) if isinstance(exc, (*SPEAKING, KeyError)) else "its text may have a password in it"
        problem = checks.Error(
            f"The broker's transport can't be loaded: {type(exc).__name__}: {text}",
            hint="Correct CELERY_BROKER_TRANSPORT (broker_transport), or the beginning of CELERY_BROKER_URL "
            "(broker_url). If a library is missing: pip install 'django-taskkit[redis]', or [amqp] for RabbitMQ.",
            id="taskkit.E005",
        )
        if problem not in found:
            found.append(problem)
        return None


def _is_ours(transport: type) -> bool:
    return any(base.__module__.startswith("django_taskkit.") for base in transport.__mro__)
