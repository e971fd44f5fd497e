"""What a message says that a ``ResultCache`` has sent: where the worker puts what the task returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from django_taskkit.stores import PREFIX

KIND: Final = "result"
"""What the keys of values have after the package's name."""

LONGEST_TIME: Final = 10 * 365 * 86_400.0
"""Seconds; what is to last longer lasts for ever."""

AFTER_DEATH: Final = 30 * 86_400.0
"""Seconds that a failure is known which stays until somebody acts."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """Where a value goes, and how long things count."""

    task_id: str
    """Of the message; one that has only copied the headers of another makes no value."""
    cache: str
    """Alias of the cache."""
    key: str
    """Of the value there."""
    timeout: float | None
    """Seconds for which the value is fresh; None: for ever."""
    stale_for: float
    """Seconds more for which it is shown while a new one is made."""
    lock_timeout: float
    """Seconds that the message may wait for a worker before it counts as lost."""
    error_timeout: float | None
    """Seconds after a failure in which the task is not sent again; None: until somebody acts."""
    lease: float
    """Seconds after which a run counts as lost whose worker is not heard of."""
    tags: tuple[str, ...] = ()

    @property
    def run_key(self) -> str:
        """The key of the record of who makes the value."""
        return run_key_of(self.key)

    @property
    def kept_for(self) -> float | None:
        """Seconds for which the cache keeps the value; None: for ever."""
        return None if self.timeout is None else self.timeout + self.stale_for

    @property
    def failure_kept_for(self) -> float:
        return AFTER_DEATH if self.error_timeout is None else self.error_timeout

    def header(self) -> dict[str, Any]:
        """Return it as the message carries it."""
        said = {name: getattr(self, name) for name in _TYPES if name != "tags"}
        return {**said, "tags": list(self.tags)} if self.tags else said


def run_key_of(key: str) -> str:
    """Return the key of the record of who makes the value at ``key``."""
    return f"{key}:run"


_NUMBER = (int, float)
_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "task_id": (str,),
    "cache": (str,),
    "key": (str,),
    "timeout": (*_NUMBER, type(None)),
    "stale_for": _NUMBER,
    "lock_timeout": _NUMBER,
    "error_timeout": (*_NUMBER, type(None)),
    "lease": _NUMBER,
    "tags": (list, tuple, type(None)),
}


def read_order(header: object) -> Order | None:
    """Return what a message's header says; None if it is nothing that we have written."""
    if not isinstance(header, Mapping):
        return None
    said = {name: header.get(name) for name in _TYPES}
    if not all(isinstance(said[name], kinds) and _makes_sense(said[name]) for name, kinds in _TYPES.items()):
        return None
    key, tags = said["key"], said.pop("tags") or ()
    if not str(key).startswith(f"{PREFIX}:{KIND}:") or not all(isinstance(tag, str) for tag in tags):
        return None
    return Order(**said, tags=tuple(tags))  # type: ignore[arg-type]


def _makes_sense(value: object) -> bool:
    """Say whether a number is one of seconds; a message may have been written by anybody."""
    if isinstance(value, bool):
        return False
    return not isinstance(value, (int, float)) or 0 <= value <= LONGEST_TIME
