"""When a message is given back to the broker, and what the broker does with it then."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery
from django.core.checks import CheckMessage

from django_taskkit import conf
from django_taskkit.checks.configuration import driver, own_tasks, settings_of, written
from django_taskkit.checks.queues import declared, is_quorum
from django_taskkit.checks.registration import error, warning

WITH_CONNECTIONS = ("redis", "amqp", "sqs")
"""Brokers that give a message to another worker when the connection is lost, or some time after."""


def late_tasks(app: Celery) -> list[tuple[str, Any]]:
    return [(name, task) for name, task in own_tasks(app) if task.acks_late]


def given_back_for_ever(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E016: a task that kills its process is given back, and nothing counts how often."""
    if driver(app) == "amqp" and all(map(is_quorum, declared(app).values())):
        return  # which count by themselves: RabbitMQ 4 stops at 20, also where nothing is set
    common = conf.current().delivery_limit
    for name, task in late_tasks(app):
        limit = getattr(task, "delivery_limit", None)
        if task.reject_on_worker_lost and not (common if limit is None else limit):
            yield error(
                "E016",
                "It has reject_on_worker_lost, and no delivery limit: if it kills its process, it does so for ever.",
                "Give it a delivery_limit, or take DELIVERY_LIMIT = None out of TASKKIT.",
                obj=name,
            )


def dropped_when_they_fail(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W026: acks_on_failure is off, and the broker has no dead-letter exchange that would take the message."""
    kind = driver(app)
    if kind == "sqs":
        return  # the redrive policy counts its receptions
    if kind == "amqp" and any(_has_dlx(queue) for queue in declared(app).values()):
        return
    options = ("acks_on_failure_or_timeout", "acks_on_failure", "acks_on_timeout")
    for option in options:
        names = [name for name, task in late_tasks(app) if getattr(task, option, None) is False]
        if names:
            yield warning(
                "W026",
                f"{option} is False for {len(names)} tasks, such as {names[0]}: the message of a task that fails is "
                "rejected, and no queue has a dead-letter exchange. The broker drops it.",
                f"Take {option} and {written(app, f'task_{option}')} out: the dead letter in the table can be requeued "
                "without it.",
            )
            return


def _has_dlx(queue: Any) -> bool:
    return "x-dead-letter-exchange" in (queue.queue_arguments or {})


def runs_on_without_connection(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W027: tasks go on when the connection is lost, while another worker gets their messages."""
    if (
        driver(app) in WITH_CONNECTIONS
        and late_tasks(app)
        and not settings_of(app).worker_cancel_long_running_tasks_on_connection_loss
    ):
        name = written(app, "worker_cancel_long_running_tasks_on_connection_loss")
        yield warning(
            "W027",
            "A worker that loses its connection lets late-acknowledged tasks run on, and another one starts them too.",
            f"Set {name} = True, as Celery 6 will.",
        )


def no_time_to_give_back(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W028: on a cold stop, messages are not given back; they wait for the visibility timeout."""
    if driver(app) in ("redis", "sqs") and late_tasks(app) and not settings_of(app).worker_soft_shutdown_timeout:
        yield warning(
            "W028",
            "A worker that is stopped cold gives nothing back: its messages wait for the whole visibility timeout.",
            f"Set {written(app, 'worker_soft_shutdown_timeout')} to some seconds, fewer than your orchestrator waits "
            f"before it kills, and {written(app, 'worker_enable_soft_shutdown_on_idle')} = True.",
        )
