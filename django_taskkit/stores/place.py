"""The cache that values are in; tests of a project have one of their own in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.cache import caches

instead: Callable[[str], Any] | None = None
"""From an alias to what stands in for that cache; None outside of tests."""


def cache_at(alias: str) -> Any:
    """Return the cache with this alias, for this thread."""
    return caches[alias] if instead is None else instead(alias)
