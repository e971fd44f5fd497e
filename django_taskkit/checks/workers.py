"""What workers are told, beside queues and limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from celery import Celery, signals
from django.conf import settings as django_settings
from django.core.checks import CheckMessage
from kombu import VERSION as KOMBU  # type: ignore[attr-defined]

from django_taskkit.checks.configuration import driver, settings_of, written
from django_taskkit.checks.queues import declared
from django_taskkit.checks.registration import warning


def children_without_processes(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W034: an option of processes is given to a pool that has none."""
    settings = settings_of(app)
    pool = settings.worker_pool
    if pool not in ("threads", "gevent", "eventlet", "solo"):
        return
    keys = ["worker_max_tasks_per_child", "worker_max_memory_per_child"]
    if pool in ("threads", "solo"):
        keys += ["task_time_limit", "task_soft_time_limit"]
    for key in keys:
        if settings.get(key):
            yield warning(
                "W034",
                f"{written(app, key)} does nothing in the pool {pool!r}, which has no processes to end.",
                f'Set {written(app, "worker_pool")} = "prefork", or take it out.',
            )


def waiting_tasks_block_others(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W035: a limit of delayed tasks, and they share their queue with those that are due."""
    settings = settings_of(app)
    if settings.get("worker_eta_task_limit") and len(declared(app)) == 1:
        yield warning(
            "W035",
            f"{written(app, 'worker_eta_task_limit')} is set, and there is one queue for all: a worker that holds so "
            "many delayed tasks takes none that is due.",
            "Take it out, as long delays wait in the outbox, or give delayed tasks a queue and a worker of their own.",
        )


def root_logger(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W036: Celery takes the handlers away that Django's LOGGING puts on the root logger."""
    logging: Any = getattr(django_settings, "LOGGING", None) or {}
    handlers = [*(logging.get("root") or {}).get("handlers", ())]
    handlers += (logging.get("loggers", {}).get("") or {}).get("handlers", ())
    if settings_of(app).worker_hijack_root_logger and handlers and not signals.setup_logging.receivers:
        name = written(app, "worker_hijack_root_logger")
        yield warning(
            "W036",
            f"Workers drop what LOGGING puts on the root logger ({', '.join(map(str, handlers))}).",
            f"Set {name} = False.",
        )


def at_start(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W037: it is left open whether a worker waits for its broker."""
    if driver(app) in ("redis", "amqp", "sqs") and settings_of(app).broker_connection_retry_on_startup is None:
        name = written(app, "broker_connection_retry_on_startup")
        yield warning("W037", f"{name} is not set: Celery 5 waits for a broker that is away at the start and warns; "
                      "Celery 6 may exit.", f"Set {name} = True.")  # fmt: skip


def half_open_connections(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W038: nothing notices that the network has dropped a connection to Redis.

    Since 5.7, kombu gives a connection up that has been silent for two of its health checks.
    """
    options: Any = settings_of(app).broker_transport_options or {}
    checked = options.get("health_check_interval", True) and KOMBU >= (5, 7)
    if driver(app) == "redis" and not (checked or options.get("socket_keepalive")):
        yield warning(
            "W038",
            "A connection to Redis that the network has dropped is not noticed: a worker may wait on it for ever.",
            f'Set "socket_keepalive": True in {written(app, "broker_transport_options")}.',
        )


def protocol(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W039: messages have the form of Celery 3, which has no headers."""
    if settings_of(app).task_protocol == 1:
        yield warning(
            "W039",
            f"{written(app, 'task_protocol')} is 1: messages have no headers, in which attempts, deadlines, root id "
            "and request id travel.",
            "Take it out, once no worker is left that is older than Celery 4.",
        )


def events_of_sqs(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W040: SQS has no events and no remote control."""
    settings = settings_of(app)
    if driver(app) == "sqs":
        for key in ("worker_send_task_events", "task_send_sent_event"):
            if settings.get(key):
                yield warning(
                    "W040",
                    f"{written(app, key)} is on, and SQS has no broadcasts: nobody gets the events.",
                    "Take it out; metrics and `taskkit doctor` work without events.",
                )
