"""Real brokers and real worker processes for the tests under ``tests/live``.

A test gets a `Broker` (its own queue on Redis, RabbitMQ or the filesystem, nothing shared with another test)
and starts a `Worker` (``python -m celery worker`` in a subprocess). Both end only what they started.

The worker's app takes the broker's settings with one line::

    app.conf.update(harness.celery_settings())

A service that cannot be had skips the test, or fails it where the environment variable ``CI`` is set. Addresses:
``TASKKIT_TEST_REDIS_URL`` (default: a private ``redis-server`` on a free port, else the one on loopback) and
``TASKKIT_TEST_RABBITMQ_URL`` (default: a virtual host of its own on loopback).
"""

from __future__ import annotations

from brokers import BROKERS, Broker, RedisBroker, open_broker
from services import MemcachedServer, RedisServer, close_services
from waiting import free_port, unavailable, wait_until
from worker_processes import ROOT, Worker, celery_settings, running_workers, workers

__all__ = [
    "BROKERS",
    "ROOT",
    "Broker",
    "MemcachedServer",
    "RedisBroker",
    "RedisServer",
    "Worker",
    "celery_settings",
    "close_services",
    "free_port",
    "open_broker",
    "running_workers",
    "unavailable",
    "wait_until",
    "workers",
]
