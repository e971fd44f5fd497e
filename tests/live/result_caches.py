"""The caches of test_result_cache*.py, real ones, and the folder by which a test and its tasks talk."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connection
from result_cache_settings import CACHES_VARIABLE
from services import MemcachedServer, Redis, service
from spool_settings import TASKKIT_VARIABLE
from waiting import unavailable, wait_until

BACKENDS = "django.core.cache.backends"
TABLE = "taskkit_test_results"

SHARED = ("redis", "django_redis", "memcached", "database")
"""Those that several processes see."""


@contextlib.contextmanager
def open_caches(blocker: Any) -> Iterator[dict[str, dict[str, Any]]]:
    """``CACHES`` with one of each kind under its name; ``default`` is on Redis. The database is that of the test."""
    import pytest

    pytest.importorskip("django_redis")
    pytest.importorskip("pymemcache")
    memcached = service(MemcachedServer)
    if not memcached.installed:
        unavailable("there is no memcached on this machine")
    if memcached.process is None:
        memcached.start()
    own, other = service(Redis).claim(), service(Redis).claim()
    kinds = {
        "redis": {"BACKEND": f"{BACKENDS}.redis.RedisCache", "LOCATION": own},
        "django_redis": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": other},
        "memcached": {"BACKEND": f"{BACKENDS}.memcached.PyMemcacheCache", "LOCATION": memcached.address},
        "database": {
            "BACKEND": f"{BACKENDS}.db.DatabaseCache",
            "LOCATION": TABLE,
            "OPTIONS": {"MAX_ENTRIES": 10_000},
        },
        "memory": {"BACKEND": f"{BACKENDS}.locmem.LocMemCache"},
    }
    with blocker.unblock():
        call_command("createcachetable", TABLE, verbosity=0)
    try:
        yield {**kinds, "default": kinds["redis"]}
    finally:
        for url in (own, other):
            service(Redis).release(url)
        with blocker.unblock(), connection.cursor() as cursor:
            cursor.execute(f"DROP TABLE {TABLE}")


def environment(django_env: dict[str, str], caches: dict[str, Any], **taskkit: Any) -> dict[str, str]:
    """What a process needs to know, worker or not."""
    return {
        **django_env,
        "DJANGO_SETTINGS_MODULE": "result_cache_settings",
        CACHES_VARIABLE: json.dumps(caches),
        TASKKIT_VARIABLE: json.dumps(taskkit),
    }


class Folder:
    """Where the tasks write and what they wait for."""

    def __init__(self, path: Path) -> None:
        path.mkdir()
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def runs(self) -> list[str]:
        """Task id of each run of a body, in their order."""
        path = self.path / "runs"
        return path.read_text().split() if path.exists() else []

    def wait_for_runs(self, count: int) -> list[str]:
        return wait_until(lambda: len(self.runs()) >= count and self.runs(), 60, f"{count} bodies run")

    def touch(self, *names: str) -> None:
        for name in names:
            (self.path / name).touch()


def wait_for_status(cached: Any, folder: Folder, *statuses: str, timeout: float = 60) -> Any:
    """The state, once it is one of these; nothing is sent by looking."""

    def look() -> Any:
        state = cached.peek(str(folder))
        return state if str(state.status) in statuses else None

    return wait_until(look, timeout, f"{cached!r} is {' or '.join(statuses)}")


def all_is_done(broker: Any, queue: str | None = None) -> bool:
    """Whether no message is left, neither waiting nor with a worker."""
    return broker.message_count(queue) + broker.unacknowledged_count() == 0
