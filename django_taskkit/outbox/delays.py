"""How long a message may wait at the broker, or in a worker, before that becomes dangerous."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

from celery import Celery
from celery.utils.time import maybe_iso8601

from django_taskkit import conf

VISIBILITY_TIMEOUT = {"redis": 3600.0, "sqs": 1800.0}
"""What kombu's transports take where ``broker_transport_options`` has no ``visibility_timeout``."""

CONSUMER_TIMEOUT = 1800.0
"""RabbitMQ closes the channel of a consumer that holds a message unacknowledged for longer."""

NATIVE_LIMIT = 2.0**28
"""Seconds that RabbitMQ's native delayed delivery can count."""


def safe_hold(app: Celery, driver: str, *, natively: bool) -> float:
    """Return the longest delay in seconds that the broker can be trusted with.

    A worker holds a message with an ETA unacknowledged: half of the time after which the broker would give it to
    another worker is safe. A broker that delays ``natively`` holds it itself.
    """
    configured = conf.current().long_delay
    if configured is not None:
        return configured or math.inf
    if natively:
        return NATIVE_LIMIT
    if driver in VISIBILITY_TIMEOUT:
        options = app.conf.broker_transport_options or {}
        return float(options.get("visibility_timeout") or VISIBILITY_TIMEOUT[driver]) / 2
    return CONSUMER_TIMEOUT / 2 if driver == "amqp" else math.inf


def seconds_until(eta: Any, app: Celery) -> float:
    """Return the seconds until the ``eta`` of a message, negative if it is past; 0 if it has none that makes sense."""
    if not eta:
        return 0.0
    try:
        moment: Any = eta if isinstance(eta, datetime) else maybe_iso8601(eta)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=app.timezone)
        return float((aware - datetime.now(timezone.utc)).total_seconds())
    except (TypeError, ValueError, AttributeError):
        return 0.0
