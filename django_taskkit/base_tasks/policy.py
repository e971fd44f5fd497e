"""How often and how long a task is retried after one kind of failure, as one object that decides."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from django_taskkit.backoff import JITTERS, Backoff, DelayPolicy, Jitter, NoJitter, Uniform, jitter_of
from django_taskkit.base_tasks.verdicts import seconds_of


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often a task is retried, and how long it waits before each retry.

    It stands on its own: what is left out has the default below, not what some task says. Equal options make equal
    policies, whatever form they were given in.

    Raises:
        ValueError: an option makes no sense; the sentence says which and what to give.
    """

    max_retries: int | None = 5
    """Retries before the task dies; None: no limit."""

    backoff: bool | float | timedelta | DelayPolicy = 1.0
    """Seconds, or a timedelta, before the first retry; each further delay is ``factor`` times as long. True is 1. Or an
    object with a ``delay`` method, which decides alone: factor, jitter, floor and cap are its own then."""

    factor: float = 2.0
    """By how much each further delay grows; 1 keeps it constant."""

    jitter: bool | str | Jitter = "equal"
    """How delays are spread: ``"equal"``, ``"full"`` (or True), ``"decorrelated"``, False, or an object."""

    floor: int = 1
    """The shortest delay in whole seconds."""

    cap: float | timedelta = 600.0
    """The longest delay in seconds, or as a timedelta."""

    retry_for: float | timedelta | None = None
    """Seconds, or a timedelta, from the first failure until which a retry may start; None: no deadline."""

    def __post_init__(self) -> None:
        for name, read in _READERS.items():
            try:
                value = read(getattr(self, name))
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from None
            # The only place that writes: equal policies have to look equal, however they were written.
            object.__setattr__(self, name, value)
        if isinstance(self.backoff, float) and self.backoff > seconds_of(self.cap):
            raise ValueError(
                f"a backoff of {self.backoff:g} s is above the cap of {seconds_of(self.cap):g} s, which would be every "
                f"delay; give a cap of more"
            )
        _ = self.delays  # says what is wrong with the numbers

    @cached_property
    def delays(self) -> DelayPolicy:
        """What computes the delays."""
        if isinstance(self.backoff, DelayPolicy):
            return self.backoff
        return Backoff(
            base=float(seconds_of(self.backoff)),
            factor=self.factor,
            floor=self.floor,
            cap=seconds_of(self.cap),
            jitter=jitter_of(self.jitter),
        )

    def delay(self, retry: int, *, previous: float | None = None, uniform: Uniform = random.uniform) -> int:
        """Return whole seconds, at least 1, before retry number ``retry``, counted from 0.

        Args:
            retry: 0 for the first retry.
            previous: the delay before the last retry in seconds, if there was one.
            uniform: where randomness comes from.
        """
        return max(1, math.ceil(self.delays.delay(retry, previous=previous, uniform=uniform)))

    def schedule(self, *, uniform: Uniform = random.uniform) -> Iterator[int]:
        """Yield the delays in whole seconds of a task that fails again at once each time, until it is dead.

        Endless if neither ``max_retries`` nor ``retry_for`` ends it.
        """
        previous: float | None = None
        total = 0
        for retry in itertools.count() if self.max_retries is None else range(self.max_retries):
            previous = self.delay(retry, previous=previous, uniform=uniform)
            total += int(previous)
            if self.retry_for is not None and total > seconds_of(self.retry_for):
                return
            yield int(previous)


def limit_of(value: object) -> int | None:
    """Return a number of retries, or None for no limit.

    Raises:
        ValueError: it is neither.
    """
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    raise ValueError(f"{value!r} makes no sense; give a whole number of retries, 0 or more, or None for no limit")


def _backoff_of(value: object) -> float | DelayPolicy:
    if value is True:
        return 1.0
    if isinstance(value, DelayPolicy) and not isinstance(value, type):
        return value
    if value is False or value is None or value == 0:
        raise ValueError(f"{value!r} makes no sense; give seconds, more than 0, and factor=1 to keep them constant")
    try:
        return seconds_of(value)
    except ValueError:
        raise ValueError(
            f"{value!r} makes no sense; give seconds, a timedelta, or an object with a delay() method"
        ) from None


def _named(jitter: Jitter) -> bool | str | Jitter:
    if jitter == NoJitter():
        return False
    return next((name for name, known in JITTERS.items() if known == jitter), jitter)


def seconds_or_none(value: object) -> float | None:
    """As :func:`seconds_of`, and None for None."""
    return None if value is None else seconds_of(value)


_READERS: dict[str, Callable[[Any], Any]] = {
    "max_retries": limit_of,
    "backoff": _backoff_of,
    "jitter": lambda value: _named(jitter_of(value)),
    "cap": seconds_of,
    "retry_for": seconds_or_none,
}
