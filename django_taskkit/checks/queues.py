"""Queues and priorities; where tasks are sent is routing.problems' to say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from celery import Celery
from django.core.checks import CheckMessage
from kombu import Queue

from django_taskkit.checks.configuration import driver, named, own_tasks, settings_of, written
from django_taskkit.checks.registration import warning


def declared(app: Celery) -> dict[str, Any]:
    """Return the queues that the settings declare, complete, by name; the default queue alone if they name none."""
    # Not ``amqp.queues``, which is kept for good, and to which publishing adds.
    return dict(app.amqp.Queues(settings_of(app).task_queues))


def is_quorum(queue: Any) -> bool:
    return bool((queue.queue_arguments or {}).get("x-queue-type") == "quorum")


def _rules(router: Any) -> Iterable[tuple[Any, Any]]:
    """Return the pairs of pattern and route; none of a function, which decides by what it is called with."""
    if isinstance(router, Mapping):
        return router.items()
    if isinstance(router, (list, tuple)):
        return [(rule[0], rule[1]) for rule in router if isinstance(rule, (list, tuple)) and len(rule) == 2]
    return []


def made_when_misspelt(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W029: queues are declared, and any other that is named is made, where a worker reads it only by -Q."""
    settings = settings_of(app)
    if not settings.task_queues or not settings.task_create_missing_queues:
        return
    yield warning(
        "W029",
        f"{written(app, 'task_queues')} declares queues, and a misspelt one is made without a word: nobody reads it.",
        f"Set {written(app, 'task_create_missing_queues')} = False, and declare every queue.",
    )


def quorum(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W030: a quorum queue on a direct exchange. W032: workers are not to find out that there are any."""
    if driver(app) != "amqp":
        return
    queues = {name: queue for name, queue in declared(app).items() if is_quorum(queue)}
    direct = sorted(name for name, queue in queues.items() if _exchange_type(queue) == "direct")
    if direct:
        yield warning(
            "W030",
            f"Quorum queues on a direct exchange: {named(direct)}. RabbitMQ can't delay their messages: each one with "
            "a countdown, and so each retry, blocks a place in a worker until it is due.",
            'Give them Exchange(..., type="topic"); RabbitMQ needs a new name for it.',
        )
    if queues and not settings_of(app).worker_detect_quorum_queues:
        name = written(app, "worker_detect_quorum_queues")
        yield warning(
            "W032",
            f"{name} is False, and there are quorum queues: RabbitMQ 3 refuses the worker's prefetch for them, and "
            "nothing is delayed by the broker.",
            f"Take {name} out.",
        )


def _exchange_type(queue: Queue) -> str:
    return str(queue.exchange.type) if queue.exchange and queue.exchange.name else "direct"


def quorum_that_drops(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W031: RabbitMQ 4 drops a message of a quorum queue after some deliveries, if it can put it nowhere."""
    if driver(app) != "amqp":
        return
    names = [
        name
        for name, queue in sorted(declared(app).items())
        if is_quorum(queue) and "x-dead-letter-exchange" not in queue.queue_arguments
    ]
    if names:
        yield warning(
            "W031",
            f"Quorum queues without a dead-letter exchange: {named(names)}. RabbitMQ 4 drops a message after 20 "
            "deliveries, or x-delivery-limit; a worker that stops counts as one.",
            "Give them x-dead-letter-exchange, and its queue to TASKKIT['INTAKE_QUEUES']. If a policy of the broker "
            "does, silence taskkit.W031.",
        )


def priorities(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W033: messages bear priorities, and RabbitMQ does not look at them in a queue that was made without.

    Redis needs no setting: kombu looks at all lists of the most urgent priority first, whatever its
    ``queue_order_strategy``, which is about queues.
    """
    users = list(_with_priority(app))
    flat = sorted(
        name
        for name, queue in declared(app).items()
        if not is_quorum(queue) and "x-max-priority" not in (queue.queue_arguments or {})
    )
    if users and flat and driver(app) == "amqp":
        yield warning(
            "W033",
            f"Priorities are given ({named(users)}), and RabbitMQ ignores them in the queues {named(flat)}.",
            f"Set {written(app, 'task_queue_max_priority')}, or x-max-priority on the queue; RabbitMQ wants it "
            "deleted and made anew for that.",
        )


def _with_priority(app: Celery) -> Iterator[str]:
    settings = settings_of(app)
    if settings.task_default_priority is not None:
        yield written(app, "task_default_priority")
    routes = settings.task_routes or ()
    for router in [routes] if isinstance(routes, (Mapping, str)) or callable(routes) else routes:
        for pattern, route in _rules(router):
            if isinstance(route, Mapping) and route.get("priority") is not None:
                yield f"the route of {pattern}"
    for name, task in own_tasks(app):
        priority = getattr(task, "priority", None)
        if priority is not None and priority != settings.task_default_priority:
            yield f"task {name}"
