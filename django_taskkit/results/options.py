"""What a ``ResultCache`` was told, checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from celery.local import Proxy

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.results.order import LONGEST_TIME

WHEN_REFUSED: Final = ("refuse", "inline")

OUR_OWN: Final = ("args", "kwargs", "task_id", "eta")
"""Options of ``apply_async`` that are not for a project to choose here: each call has its own."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a ``ResultCache``, in seconds; see there."""

    timeout: float | None
    stale_for: float
    lock_timeout: float
    error_timeout: float | None
    lease: float
    vary_on: tuple[str, ...] | None
    version: str
    tags: tuple[str, ...] | Callable[..., Iterable[str]]
    cache: str
    when_refused: str
    send_with: Mapping[str, Any]
    poll_every: int


def check_options(
    task: Any,
    *,
    vary_on: Any,
    version: Any,
    tags: Any,
    cache: Any,
    when_refused: Any,
    send_with: Any,
    poll_every: Any,
    timeout: Any,
    stale_for: Any,
    lock_timeout: Any,
    error_timeout: Any,
    lease: Any,
) -> Options:
    """Return the options in one form.

    Raises:
        ConfigurationError: one makes no sense.
    """
    # To look into the proxy of a shared task would finish the app while the project's modules are being imported.
    if not issubclass(type(task), Proxy):
        check_task(task)
    if isinstance(vary_on, str):
        vary_on = (vary_on,)
    vary_on = None if vary_on is None else tuple(vary_on)
    if vary_on is not None and not all(isinstance(name, str) for name in vary_on):
        raise _wrong("vary_on", vary_on, "give names of arguments, for example ('user_id',), or None for all of them")
    if isinstance(tags, str):
        tags = (tags,)
    tags = tags if callable(tags) else tuple(tags)
    if not callable(tags) and not all(isinstance(tag, str) for tag in tags):
        raise _wrong("tags", tags, "give texts, for example ('user:{user_id}',), or a function that returns texts")
    if isinstance(version, bool) or not re.fullmatch(r"[\w.-]{1,40}", str(version)):
        raise _wrong("version", version, "give a number or a word of at most 40 letters")
    if not isinstance(cache, str):
        raise _wrong("cache", cache, "give the alias of one of CACHES")
    if when_refused not in WHEN_REFUSED:
        raise _wrong("when_refused", when_refused, f"give one of {', '.join(map(repr, WHEN_REFUSED))}")
    if not isinstance(poll_every, int) or isinstance(poll_every, bool) or poll_every < 1:
        raise _wrong("poll_every", poll_every, "give whole seconds, 1 or more")
    send_with = dict(send_with or {})
    if taken := [name for name in OUR_OWN if name in send_with]:
        raise _wrong("options", send_with, f"leave out {', '.join(taken)}: each call has its own")
    return Options(
        timeout=None if timeout is None else _seconds("timeout", timeout, above_zero=True),
        stale_for=_seconds("stale_for", stale_for),
        lock_timeout=_seconds("lock_timeout", lock_timeout, above_zero=True),
        error_timeout=None if error_timeout is None else _seconds("error_timeout", error_timeout, above_zero=True),
        lease=_seconds("lease", lease, above_zero=True),
        vary_on=vary_on,
        version=str(version),
        tags=tags,
        cache=cache,
        when_refused=when_refused,
        send_with=send_with,
        poll_every=poll_every,
    )


def check_task(task: Any) -> None:
    """Look at the task itself.

    Raises:
        ConfigurationError: it is none, or one whose results can't be cached.
    """
    if not (hasattr(task, "apply_async") and hasattr(task, "run")):
        raise ConfigurationError(f"ResultCache: {task!r} is no task; give what @shared_task or @app.task has made")
    if getattr(task, "idempotency_key", None) is not None:
        raise ConfigurationError(
            f"ResultCache of {task.name}: the task has an idempotency_key, so that a run which is to make a new value "
            f"would be answered with the old one; a ResultCache sends it once without, take the key away"
        )


def _seconds(name: str, value: Any, *, above_zero: bool = False) -> float:
    number = value.total_seconds() if isinstance(value, timedelta) else value
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if not is_number or not 0 <= number <= LONGEST_TIME or (above_zero and number == 0):
        least = "more than 0" if above_zero else "0 or more"
        raise _wrong(name, value, f"give seconds, {least} and ten years at most, or a timedelta")
    return float(number)


def _wrong(name: str, value: object, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"ResultCache: {name} is {value!r:.80}; {remedy}")
