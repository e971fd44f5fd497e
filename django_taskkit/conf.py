"""The ``TASKKIT`` setting as one frozen, typed object.

Read it through :func:`current`, never at import: it follows ``override_settings``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed

from django_taskkit.exceptions import ConfigurationError

CAPTURE_MODES = ("all", "opt_in")


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


_LEAST = {"message_max_length": 100, "traceback_max_length": 1_000}


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
    if name == "capture":
        return None if value in CAPTURE_MODES else f"give one of {', '.join(map(repr, CAPTURE_MODES))}"
    if name == "redact":
        names = not isinstance(value, str) and isinstance(value, (Sequence, set, frozenset))
        if names and all(isinstance(item, str) and item for item in value):
            return None
        return "give a list of names, for example ['password', 'token']"
    if name == "release":
        return None if isinstance(value, str) and len(value) <= 255 else "give a text of at most 255 characters"
    least = _LEAST[name]
    if isinstance(value, int) and not isinstance(value, bool) and value >= least:
        return None
    return f"give a whole number of characters, {least} or more"


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
    if "redact" in values:
        values["redact"] = tuple(values["redact"])
    return Settings(**values)


def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting == "TASKKIT":
        current.cache_clear()


setting_changed.connect(_forget, dispatch_uid="django_taskkit.conf")
