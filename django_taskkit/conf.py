"""The ``TASKKIT`` setting as one frozen, typed object.

Read it through :func:`current`, never at import: it follows ``override_settings``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from django_taskkit.exceptions import ConfigurationError

CHOICES = {
    "capture": ("all", "opt_in"),
    "outbox": ("on_failure", "always", "never"),
    "unsafe_arguments": ("error", "warn", "allow"),
    "beat_lock": ("database", "store", "off"),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the project says in ``TASKKIT``; the keys there are these names in capitals."""

    capture: str = "all"
    """``"all"``: failures of every task become dead letters; ``"opt_in"``: of tasks with ``dead_letter = True``."""

    redact: tuple[str, ...] = (
        "password",
        "passwd",
        "passphrase",
        "secret",
        "token",
        "api_key",
        "apikey",
        "access_key",
        "private_key",
        "authorization",
        "credential",
        "cookie",
        "session_id",
        "card_number",
        "cvv",
        "iban",
    )
    """Arguments whose name contains one of these, in any case, are shown as asterisks."""

    release: str = ""
    """The version of the project that is running; stored with every dead letter. At most 255 characters."""

    message_max_length: int = 10_000
    """Characters of an exception's message that are kept."""

    traceback_max_length: int = 100_000
    """Characters of a traceback that are kept: the first and the last part."""

    delivery_limit: int | None = 3
    """How often a message that is acknowledged late may be started before it is dead; None for no limit.
    A task's own ``delivery_limit`` wins."""

    hold_workflows: bool = False
    """Whether a chord or group waits for a member that died, until it was requeued and succeeded, or was discarded.
    A task's own ``hold`` and the message header ``taskkit_hold`` win."""

    outbox: str = "on_failure"
    """``"on_failure"``: a message that the broker doesn't take waits in the outbox; ``"always"``: every message goes
    through it, in the transaction of the caller; ``"never"``: the caller gets the error."""

    long_delay: int | None = None
    """Seconds of delay from which a message waits in the outbox instead of at the broker or in a worker; 0: never.
    None: as long as the broker holds messages safely, from its own settings."""

    spool_queue: str = "taskkit.spool"
    """The queue that takes dead letters while the database is down; empty: they go to a file at once."""

    spool_dir: str = ""
    """The folder for dead letters while neither database nor broker takes them, as an absolute path: workers and relay
    may run in different folders; empty: one below ``/var/tmp``."""

    intake_queues: tuple[str, ...] = ()
    """Queues that the broker's own dead-letter exchange fills; the relay brings what is in them into the table."""

    retention_days: int | None = 30
    """Days after which a purge deletes rows that recovered or were discarded; None: never. Others are never deleted."""

    dead_warn_count: int | None = 10_000
    """How many dead letters may wait for someone before ``check --database`` and the purge warn; None: any number."""

    dead_warn_age_days: int | None = 30
    """How many days a dead letter may wait before the same two warn; None: any number."""

    editable: tuple[str, ...] = ()
    """Tasks whose arguments may be edited in a dead letter: names, with ``*`` for any characters (``"orders.*"``).
    A task's own ``editable`` wins."""

    unsafe_arguments: str = "error"
    """What becomes of a call with an argument that should not travel (a model instance, a request, an open file):
    ``"error"``: the caller gets an UnsafeArgumentError; ``"warn"``: a warning; ``"allow"``: nothing."""

    shared_store: str = "default"
    """Where workers share retry budgets, breakers and idempotency keys: the alias of a cache, or the URL of a Redis."""

    metrics: tuple[str, ...] = ()
    """What workers, beat, relay and web count for: ``"prometheus"``, ``"opentelemetry"``, or both; empty: nothing."""

    beat_lock: str = "database"
    """Where beat says that it is the only one: ``"database"``, ``"store"`` (``SHARED_STORE``), or ``"off"``. A second
    beat waits, and takes over when the first is gone."""

    health_dir: str = ""
    """The folder of the files by which ``taskkit health`` knows that a process works, as an absolute path; empty: one
    below the system's folder for temporary files."""

    site_url: str = ""
    """Where the project's admin is reached, such as ``"https://shop.example"``: alerts link to it; empty: no links."""


_LEAST = {
    "message_max_length": 100,
    "traceback_max_length": 1_000,
    "delivery_limit": 1,
    "long_delay": 0,
    "retention_days": 1,
    "dead_warn_count": 1,
    "dead_warn_age_days": 1,
}
_UNITS = {
    "message_max_length": " of characters",
    "traceback_max_length": " of characters",
    "long_delay": " of seconds",
    "retention_days": " of days",
    "dead_warn_age_days": " of days",
}
_MAY_BE_NONE = ("delivery_limit", "long_delay", "retention_days", "dead_warn_count", "dead_warn_age_days")
_YES_OR_NO = ("hold_workflows",)
_TEXTS = ("release", "spool_queue", "spool_dir", "shared_store", "health_dir", "site_url")
_FOLDERS = {"spool_dir": "/var/lib/project/spool", "health_dir": "/run/project"}
_LISTS = {
    "redact": "'password', 'token'",
    "intake_queues": "'dead'",
    "editable": "'orders.*'",
    "metrics": "'prometheus'",
}
_OF_LISTS = {"metrics": ("prometheus", "opentelemetry")}


def problems(raw: Any) -> list[str]:
    """Return one sentence for everything that is wrong with a ``TASKKIT`` dict; none if it is right."""
    if not isinstance(raw, Mapping):
        return [f"TASKKIT is {raw!r}, but it has to be a dict, for example {{'RELEASE': '1.4.2'}}."]
    known = {field.name.upper(): field for field in fields(Settings)}
    found = []
    for key, value in raw.items():
        if key not in known:
            found.append(f"TASKKIT[{key!r}] is not a setting{_did_you_mean(str(key), known)}")
        elif (complaint := _complaint(known[key].name, value)) is not None:
            found.append(f"TASKKIT[{key!r}] is {value!r}; {complaint}.")
    return found


def _did_you_mean(key: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key.upper(), known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; the settings are {', '.join(sorted(known))}."


def _complaint(name: str, value: Any) -> str | None:
    if name in CHOICES:
        return None if value in CHOICES[name] else f"give one of {', '.join(map(repr, CHOICES[name]))}"
    if name in _LISTS:
        names = not isinstance(value, str) and isinstance(value, (Sequence, set, frozenset))
        if names and name in _OF_LISTS and any(item not in _OF_LISTS[name] for item in value):
            return f"give a list of {' and '.join(map(repr, _OF_LISTS[name]))}, or of one of them"
        if names and all(isinstance(item, str) and item for item in value):
            return None
        return f"give a list of names, for example [{_LISTS[name]}]"
    if name in _FOLDERS and isinstance(value, str) and value and not os.path.isabs(value):
        return f"give an absolute path, such as {_FOLDERS[name]!r}, which is the same folder in every process"
    if name in _YES_OR_NO:
        return None if isinstance(value, bool) else "give True or False"
    if name in _TEXTS:
        return None if isinstance(value, str) and len(value) <= 255 else "give a text of at most 255 characters"
    least, unit = _LEAST[name], _UNITS.get(name, "")
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return None
    if value is None and name in _MAY_BE_NONE:
        return None
    return f"give a whole number{unit}, {least} or more{', or None' if name in _MAY_BE_NONE else ''}"


@lru_cache(maxsize=1)
def current() -> Settings:
    """Return the settings in force.

    Raises:
        ConfigurationError: ``TASKKIT`` has an unknown key or a value that makes no sense.
    """
    raw = getattr(django_settings, "TASKKIT", {})
    if found := problems(raw):
        raise ConfigurationError(" ".join(found))
    values = {key.lower(): value for key, value in raw.items()}
    for name in _LISTS.keys() & values.keys():
        values[name] = tuple(values[name])
    return Settings(**values)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TASKKIT":
        current.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_taskkit.conf")
