"""Time limits, and how long a message may be with a worker before the broker gives it to another one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery
from celery.utils.quorum_queues import detect_quorum_queues
from django.core.checks import CheckMessage

from django_taskkit import conf
from django_taskkit.checks.configuration import driver, named, number, own_tasks, settings_of, written
from django_taskkit.checks.lanes import OfLanes
from django_taskkit.checks.registration import error, warning
from django_taskkit.outbox.delays import CONSUMER_TIMEOUT, VISIBILITY_TIMEOUT, safe_hold
from django_taskkit.outbox.publishing import choice_for

NAMES = {"redis": "Redis", "sqs": "SQS", "amqp": "RabbitMQ"}
USUAL_DELAY = 180
"""Celery's ``default_retry_delay`` in seconds, which every task has, also one that never retries."""


def soft_not_below_hard(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E015, once for the settings and for each task with a limit of its own."""
    settings = settings_of(app)
    common = number(settings.task_soft_time_limit), number(settings.task_time_limit)
    hint = "Celery looks at the hard limit only after the soft one: make the soft limit the shorter of the two."
    if _is_upside_down(*common):
        yield error(
            "E015",
            f"{written(app, 'task_soft_time_limit')} of {common[0]:g} s is not below "
            f"{written(app, 'task_time_limit')} of {common[1]:g} s: the hard limit does nothing before.",
            hint,
        )
    for name, task in own_tasks(app):
        limits = number(task.soft_time_limit) or common[0], number(task.time_limit) or common[1]
        if limits != common and _is_upside_down(*limits):
            yield error(
                "E015",
                f"Its soft_time_limit of {limits[0]:g} s is not below its time_limit of {limits[1]:g} s: the hard "
                "limit does nothing before.",
                hint,
                obj=name,
            )


def _is_upside_down(soft: float | None, hard: float | None) -> bool:
    return bool(soft and hard and soft >= hard)


def none_at_all(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W022: a task that hangs keeps its process for ever. Only prefork can end one."""
    if settings_of(app).worker_pool != "prefork":
        return
    of_lanes = OfLanes(app)
    endless = [name for name, task in own_tasks(app) if not of_lanes.limit(name, task)]
    if endless:
        yield warning(
            "W022",
            f"Tasks without a time limit: {named(endless)}. One that hangs keeps its process, and keeps its worker "
            "from stopping, for ever.",
            f"Set {written(app, 'task_time_limit')} above the longest time that a task may take, and "
            f"{written(app, 'task_soft_time_limit')} somewhat below; a task's own time_limit wins.",
        )


def hold_of(app: Celery) -> tuple[str, float] | None:
    """Return the broker and how many seconds a worker may have a message unacknowledged; None: as long as it lives."""
    kind = driver(app)
    if kind in VISIBILITY_TIMEOUT:
        options: Any = settings_of(app).broker_transport_options or {}
        return kind, number(options.get("visibility_timeout")) or VISIBILITY_TIMEOUT[kind]
    return (kind, CONSUMER_TIMEOUT) if kind == "amqp" else None


def longer_than_the_broker_waits(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W023, for the task with the longest limit: it may run for longer than SQS or RabbitMQ wait.

    taskkit.W003 says it of Redis.
    """
    held = hold_of(app)
    if held is None or held[0] == "redis":
        return
    kind, hold = held
    of_lanes = OfLanes(app)
    late = [(of_lanes.limit(name, task) or 0.0, name) for name, task in own_tasks(app) if task.acks_late]
    limit, name = max(late, default=(0.0, ""))
    if limit < hold:
        return
    what, remedy = {
        "sqs": (
            "SQS' visibility_timeout: another worker gets the message while it still runs",
            "Raise visibility_timeout in broker_transport_options above the longest time limit; SQS takes up to 12 h.",
        ),
        "amqp": (
            "RabbitMQ's consumer_timeout, if that is as installed: the broker closes the channel, and the worker exits",
            "Raise consumer_timeout in rabbitmq.conf, or lower the limit. Silence taskkit.W023 if the broker has more: "
            "`taskkit doctor` asks it.",
        ),
    }[kind]
    yield warning("W023", f"Its time_limit of {limit:g} s is beyond the {hold:g} s of {what}.", remedy, obj=name)


def waits_behind_others(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W025: each task fits, and what a worker has fetched ahead does not fit behind it."""
    held, of_lanes = hold_of(app), OfLanes(app)
    if held is None:
        return
    kind, hold = held
    late = [
        (limit * ahead, limit, ahead, name)
        for name, task in own_tasks(app)
        # One that is beyond it alone is W003's or W023's.
        if task.acks_late and (limit := of_lanes.limit(name, task) or 0.0) < hold
        if (ahead := of_lanes.prefetch(name) or 1.0) > 1
    ]
    longest, limit, ahead, name = max(late, default=(0.0, 0.0, 0.0, ""))
    if longest >= hold:
        yield warning(
            "W025",
            f"A worker fetches {ahead:g} messages for each process; the last of them may wait for {longest:g} s "
            f"if they run up to the limit of {limit:g} s, and {NAMES[kind]} gives it {hold:g} s.",
            f"Set {written(app, 'worker_prefetch_multiplier')} = 1, or lower the limit.",
            obj=name,
        )


def delays(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W024: a delay that a worker holds for longer than the broker lets it. The outbox takes most of them."""
    held = hold_of(app)
    if held is None:
        return
    kind, hold = held
    natively = bool(detect_quorum_queues(app, kind)[0])
    if natively:
        return
    kept_from = safe_hold(app, kind, natively=False)
    twice = "another worker gets the message, and it runs twice" if kind != "amqp" else "the broker closes the channel"
    if conf.current().long_delay is not None and kept_from > hold:
        given = conf.current().long_delay
        says = f"{given} s" if given else "0, which is no limit"
        yield warning(
            "W024",
            f"TASKKIT['LONG_DELAY'] is {says}: workers hold delays beyond the {hold:g} s that {NAMES[kind]} gives "
            f"them; {twice}.",
            "Take it out: the broker's own settings say how long a delay may be; longer ones wait in the outbox.",
        )
    for name, task in own_tasks(app):
        longest = longest_delay(task)
        if choice_for(app, name, None) == "never" and longest >= hold:
            yield warning(
                "W024",
                f"Its retries wait for up to {longest:g} s, and no outbox takes them: {NAMES[kind]} gives a worker "
                f"{hold:g} s; {twice}.",
                "Let the outbox take it (outbox, TASKKIT['OUTBOX']), or lower the delay.",
                obj=name,
            )


def longest_delay(task: Any) -> float:
    """Return the seconds that a retry may wait, as far as the options say; 0 for a task that does not retry."""
    if task.max_retries == 0:
        return 0.0
    if getattr(task, "retry_backoff", False):
        return number(getattr(task, "retry_backoff_max", 600)) or 0.0
    usual = number(task.default_retry_delay) or 0.0
    return usual if usual != USUAL_DELAY or bool(getattr(task, "autoretry_for", ())) else 0.0
