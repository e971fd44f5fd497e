"""Would this Redis keep messages: when memory runs out, and when it restarts?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.site import Site

FULL = 0.9
"""The share of ``maxmemory`` from which on it is nearly full."""

HOW_TO_ASK = (
    "Look in redis.conf, or in the console of whoever runs it; or let this user run INFO (the ACL category @dangerous)."
)

EVICTION = "redis-eviction"
PERSISTENCE = "redis-persistence"
MEMORY = "redis-memory"
STRANDED = "redis-stranded"


@dataclass
class RedisFacts:
    """What the server says of itself; empty where the user may not ask."""

    info: Mapping[str, Any] = field(default_factory=dict)
    save: str | None = None
    """Its snapshot rules, such as ``3600 1 300 100``; empty: no snapshots. None: not told."""
    refused: str = ""
    """What it said when it refused INFO."""
    clock_ahead: float | None = None
    """Seconds by which its clock is ahead of ours."""
    clock_error: float = 0.0
    stranded: Mapping[str, int] = field(default_factory=dict)
    """Lists of other priority steps than the app's, with the messages in them."""


def redis(site: Site) -> Iterator[Finding]:
    """``redis-eviction``, ``redis-persistence``, ``redis-memory``, ``redis-stranded``."""
    if site.driver != "redis":
        return
    facts = facts_of(site)
    if facts.refused:
        for id in (EVICTION, PERSISTENCE, MEMORY):
            yield unknown(id, f"Redis does not let this user ask: {facts.refused}", HOW_TO_ASK)
    else:
        yield eviction(facts.info)
        yield persistence(facts)
        yield memory(facts.info)
    yield stranded(facts.stranded)


def facts_of(site: Site) -> RedisFacts:
    """Ask the broker's Redis for everything at once.

    Raises:
        BrokerUnreachableError: no connection.
    """
    names = site.queue_names()
    return site.on_broker(lambda connection: _ask(connection.channel(), names))


def _ask(channel: Any, names: list[str]) -> RedisFacts:
    from redis.exceptions import ResponseError

    from django_taskkit.observability.brokers.redis import plain_client

    client, facts = plain_client(channel), RedisFacts()
    try:
        facts.info = client.info()
    except ResponseError as exc:  # no right to it, or a managed Redis without it
        facts.refused = str(exc)
    with suppress(ResponseError, KeyError):
        saved = client.config_get("save")["save"]
        facts.save = saved.decode() if isinstance(saved, bytes) else str(saved)
    with suppress(ResponseError):
        before, began = time.time(), time.monotonic()
        seconds, microseconds = client.time()
        took = time.monotonic() - began
        facts.clock_ahead, facts.clock_error = seconds + microseconds / 1e6 - (before + took / 2), took / 2
    facts.stranded = _stranded(channel, client, names)
    return facts


def _stranded(channel: Any, client: Any, names: list[str]) -> dict[str, int]:
    """Return what lies in lists of steps that this app doesn't have, which then nobody reads."""
    from django_taskkit.observability.brokers.redis import lists_of

    prefix, sep = channel.global_keyprefix, channel.sep
    read = {key for name in names for key in lists_of(channel, name)}
    others = [key for name in names for step in range(1, 10) if (key := f"{prefix}{name}{sep}{step}") not in read]
    with client.pipeline(transaction=False) as pipe:
        for key in others:
            pipe.llen(key)
        lengths = pipe.execute(raise_on_error=False)
    return {key: length for key, length in zip(others, lengths, strict=True) if isinstance(length, int) and length}


def eviction(info: Mapping[str, Any]) -> Finding:
    policy, limit = str(info.get("maxmemory_policy", "")), int(info.get("maxmemory") or 0)
    if not policy:
        return unknown(EVICTION, "Redis does not say what it does when memory runs out.", HOW_TO_ASK)
    if policy == "noeviction":
        return ok(EVICTION, "Redis deletes nothing when memory runs out (maxmemory-policy noeviction).")
    remedy = (
        "Set maxmemory-policy noeviction in redis.conf or at the provider (by hand: CONFIG SET maxmemory-policy "
        "noeviction), and give a cache a Redis of its own."
    )
    if not limit:
        return warning(
            EVICTION, f"maxmemory-policy is {policy}: messages would go, should maxmemory ever be set.", remedy
        )
    size = f"maxmemory is {limit / 2**20:.0f} MB"
    if policy.startswith("volatile-"):
        return warning(
            EVICTION, f"maxmemory-policy is {policy} and {size}: results and locks go when memory runs out.", remedy
        )
    return error(
        EVICTION, f"maxmemory-policy is {policy} and {size}: messages silently go when memory runs out.", remedy
    )


def persistence(facts: RedisFacts) -> Finding:
    info = facts.info
    if "aof_enabled" not in info:
        return unknown(PERSISTENCE, "Redis does not say whether it writes to disk.", HOW_TO_ASK)
    for name, what in (("aof_last_write_status", "append-only file"), ("rdb_last_bgsave_status", "snapshot")):
        if info.get(name) not in (None, "ok"):
            return error(
                PERSISTENCE,
                f"Redis could not write its {what} the last time ({name} is {info[name]}), and may refuse messages.",
                "See its log; is the disk full?",
            )
    if info["aof_enabled"]:
        return ok(PERSISTENCE, "Redis writes each message to disk (appendonly yes); a power cut may cost a second.")
    remedy = "Set appendonly yes in redis.conf or at the provider (by hand: CONFIG SET appendonly yes)."
    if facts.save is None:
        return warning(
            PERSISTENCE, "Redis has no append-only file: a restart loses what came after its last snapshot.", remedy
        )
    if not facts.save.strip():
        return error(PERSISTENCE, "Redis writes nothing to disk: a restart loses every message.", remedy)
    return warning(
        PERSISTENCE,
        f"Redis writes snapshots only (save {facts.save}): a crash loses what came after the last one.",
        remedy,
    )


def memory(info: Mapping[str, Any]) -> Finding:
    used, limit = int(info.get("used_memory") or 0), int(info.get("maxmemory") or 0)
    if not limit:
        return ok(MEMORY, f"Redis uses {used / 2**20:.0f} MB and has no maxmemory.")
    text = f"Redis uses {used / 2**20:.0f} MB of {limit / 2**20:.0f} MB (maxmemory)"
    if used >= FULL * limit:
        return error(
            MEMORY, f"{text}: soon it refuses messages, or deletes them.", "Give it more, or find out what fills it."
        )
    return ok(MEMORY, f"{text}.")


def stranded(lists: Mapping[str, int]) -> Finding:
    if not lists:
        return ok(STRANDED, "No message lies in a list of a priority that this project doesn't use.")
    shown = ", ".join(f"{key!r} ({count})" for key, count in sorted(lists.items())[:5])
    return error(
        STRANDED,
        f"{sum(lists.values())} messages lie in lists of priorities that nobody reads: {shown}.",
        "Somebody sends with other priority_steps than this project's: give all processes the same "
        "broker_transport_options, and read these lists with a worker that has the old ones until they are empty.",
    )
