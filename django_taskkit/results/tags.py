"""Tags, by which many values are invalidated at once.

A tag has a version, a random one, and a value has those of its tags when its run began. Another version, or none, and
the value doesn't count any more. So nobody needs to know which values a tag has, what is under way is invalidated as
well, and a version that the cache throws away costs a run, and never shows what is old.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

from asgiref.sync import sync_to_async
from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import SynchronousOnlyOperation

from django_taskkit.exceptions import StoreError
from django_taskkit.stores import PREFIX
from django_taskkit.stores.place import cache_at

LEAST_TIME: Final = 30 * 86_400.0
"""Seconds that a version is kept at least: values that live for different times may have the same tag."""

_FIT: Final = re.compile(r"[\x21-\x7e]{1,150}\Z")


def tag_key(tag: str) -> str:
    """Return the key of a tag's version; two tags have two."""
    if _FIT.match(tag) and not tag.startswith("#") and tag == tag.lower():
        return f"{PREFIX}:tag:{tag}"
    return f"{PREFIX}:tag:#{hashlib.sha256(tag.encode()).hexdigest()}"


def versions_now(cache: Any, tags: Iterable[str], *, kept_for: float | None) -> dict[str, str]:
    """Return the versions of ``tags``; one that has none gets one.

    Args:
        kept_for: seconds for which a value may depend on them; None: for ever.
    """
    keys = {tag_key(tag): tag for tag in tags}
    found = cache.get_many(keys)
    timeout = None if kept_for is None else max(LEAST_TIME, 2 * kept_for)
    for key in keys:
        if key in found:
            cache.touch(key, timeout)
        else:
            cache.add(key, uuid.uuid4().hex, timeout)
            found[key] = cache.get(key)
    return {tag: str(found[key]) for key, tag in keys.items()}


def still_count(tags: Iterable[str], versions: Mapping[str, str], found: Mapping[str, Any]) -> bool:
    """Say whether a value has all of ``tags``, and none of them was invalidated since.

    Args:
        versions: those that the value has.
        found: those of today, by their keys.
    """
    return all(tag in versions and found.get(tag_key(tag)) == versions[tag] for tag in tags)


def invalidate_tag(tag: str, *, cache: str = "default") -> None:
    """Have no value count any more that has ``tag``, whatever task it is of, nor one that is being made now.

    Args:
        cache: alias of the cache that they are in.

    Raises:
        StoreError: the cache is out of reach, and the values are as they were.
    """
    try:
        cache_at(cache).delete(tag_key(tag))  # the next run that begins gives it a new version
    except (SoftTimeLimitExceeded, SynchronousOnlyOperation):
        raise
    except Exception as exc:  # each cache has errors of its own
        raise StoreError(f"the tag {tag!r} can't be invalidated in the cache {cache!r}: {exc}") from exc


async def ainvalidate_tag(tag: str, *, cache: str = "default") -> None:
    """As :func:`invalidate_tag`."""
    await sync_to_async(invalidate_tag)(tag, cache=cache)
