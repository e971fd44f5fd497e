"""What ``manage.py check`` says about each ``ResultCache``."""

from __future__ import annotations

from django.core import checks
from django.core.cache import caches
from django.core.cache.backends.db import BaseDatabaseCache
from django.core.cache.backends.locmem import LocMemCache

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results.cache import ResultCache, declared

FEW = 1000
"""Entries of a cache that throws away a third of them beyond its bound, below which records may be among them."""


def check_results() -> list[checks.CheckMessage]:
    """taskkit.E007, W012 and W013."""
    found: list[checks.CheckMessage] = []
    for cache in declared():
        try:
            cache.check()
        except ConfigurationError as exc:
            hint = "It would be raised by the first request that asks for the result."
            found.append(checks.Error(f"{exc}.", hint=hint, obj=cache, id="taskkit.E007"))
        else:
            found += _of_place(cache)
    return found


def _of_place(cache: ResultCache) -> list[checks.CheckMessage]:
    place = caches[cache.alias]
    if isinstance(place, LocMemCache):
        if cache.task.app.conf.task_always_eager:
            return []
        return [
            checks.Warning(
                f"Its cache {cache.alias!r} is in each process's memory: what a worker makes never reaches a page.",
                hint="Give a cache on Redis, Memcached or the database.",
                obj=cache,
                id="taskkit.W012",
            )
        ]
    if isinstance(place, BaseDatabaseCache) and place._max_entries < FEW:
        return [
            checks.Warning(
                f"Its cache {cache.alias!r} throws away a third of its entries beyond {place._max_entries}, also the "
                f"record of what is on its way.",
                hint="Raise it: 'OPTIONS': {'MAX_ENTRIES': 100_000}.",
                obj=cache,
                id="taskkit.W013",
            )
        ]
    return []
