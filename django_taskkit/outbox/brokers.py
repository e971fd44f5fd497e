"""Which broker is the relay's? A row of the outbox does not say where its message belongs."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from celery import Celery
from celery.app import app_or_default


def is_relays_broker(connection: Any) -> bool:
    """Say whether ``connection`` goes to the broker of the current app, which is where the relay will publish.

    A call may bring a connection of its own, and a process may have a second app with another broker.
    """
    app = app_or_default()
    return not _addresses(connection).isdisjoint(_addresses_of(app, app.conf.broker_write_url, app.conf.broker_url))


@lru_cache(maxsize=8)
def _addresses_of(app: Celery, *urls: Any) -> frozenset[str]:
    return _addresses(app.connection_for_write())


def _addresses(connection: Any) -> frozenset[str]:
    # With several alternatives the connection is at one of them.
    return frozenset([connection.as_uri(include_password=True), *(connection.alt or ())])
