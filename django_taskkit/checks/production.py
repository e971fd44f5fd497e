"""What is fine on a desk, or in tests, and not where it counts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from celery import Celery
from django.conf import settings as django_settings
from django.core.checks import CheckMessage

from django_taskkit.checks.configuration import driver, own_tasks, settings_of, written
from django_taskkit.checks.registration import error, warning


def eager(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.E021: no task goes to a worker."""
    if settings_of(app).task_always_eager:
        yield error(
            "E021",
            f"{written(app, 'task_always_eager')} is on: every task runs inside the request that calls it, and none "
            "reaches a worker.",
            "Take it out of these settings; it is for tests.",
        )


def eager_and_raising(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W048: in eager mode, the first failure of a task that retries is raised out of ``delay``."""
    settings = settings_of(app)
    if settings.task_always_eager and settings.task_eager_propagates:
        names = [name for name, task in own_tasks(app) if getattr(task, "autoretry_for", ())]
        if names:
            yield warning(
                "W048",
                f"Tasks that retry, such as {names[0]}, don't: with {written(app, 'task_eager_propagates')}, eager "
                "mode raises Retry out of delay() at the first failure.",
                f"Take {written(app, 'task_eager_propagates')} out, or test with django_taskkit.testing.",
            )


def shared_with_a_cache(app: Celery) -> Iterator[CheckMessage]:
    """taskkit.W049: clearing the cache empties the broker."""
    if driver(app) != "redis":
        return
    settings = settings_of(app)
    brokers = {place for key in ("broker_read_url", "broker_write_url") for place in places(getattr(settings, key))}
    for alias, cache in django_settings.CACHES.items():
        location = cache.get("LOCATION") or ""
        if "redis" in str(cache.get("BACKEND", "")).lower() and not brokers.isdisjoint(places(location)):
            yield warning(
                "W049",
                f"The cache {alias!r} and the broker are one database of Redis: cache.clear() deletes every task that "
                "waits, and a Redis that may evict entries of a cache evicts messages.",
                "Give the cache a database of its own, better a Redis of its own: .../1.",
            )


def places(urls: Any) -> set[tuple[str, int, str]]:
    """Return host, port and database of each Redis that ``urls`` name, a list or with ``;`` or ``,`` between them."""
    found = set()
    for url in urls if isinstance(urls, (list, tuple, set)) else str(urls or "").replace(",", ";").split(";"):
        parts = urlsplit(str(url).strip())
        query = parse_qs(parts.query)
        if parts.scheme in ("redis", "rediss"):
            database = (query.get("db") or query.get("virtual_host") or [parts.path])[0].strip("/") or "0"
            host = (parts.hostname or "localhost").replace("127.0.0.1", "localhost")
            found.add((host, parts.port or 6379, database))
        elif parts.scheme in ("socket", "redis+socket", "unix"):
            database = (query.get("virtual_host") or query.get("db") or ["0"])[0].strip("/")
            found.add((unquote(parts.path), 0, database))
    return found
