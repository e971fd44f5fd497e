"""How long to wait before a retry: pure policies, no Celery and no Django.

A policy decides, the task obeys. Randomness is passed in (``uniform(low, high)``), so a delay can be
reproduced. Delays are whole seconds, at least one: a broker that keeps delayed messages itself (RabbitMQ
quorum queues) refuses a fraction below one second, and a delay of zero lets a retry overtake the
bookkeeping of the run before it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

Uniform = Callable[[float, float], float]


@runtime_checkable
class Jitter(Protocol):
    """Spreads delays, so that tasks that failed together do not come back together."""

    def spread(self, value: float, *, base: float, cap: float, previous: float | None, uniform: Uniform) -> float:
        """Return the delay in seconds to use for the nominal ``value``."""
        ...


@dataclass(frozen=True)
class NoJitter:
    """The nominal delay as it is: for a dependency that only one task uses."""

    def spread(self, value: float, *, base: float, cap: float, previous: float | None, uniform: Uniform) -> float:
        return value


@dataclass(frozen=True)
class FullJitter:
    """``uniform(0, v)``: least contention, but a retry may come almost at once (Celery's own jitter)."""

    def spread(self, value: float, *, base: float, cap: float, previous: float | None, uniform: Uniform) -> float:
        return uniform(0.0, value)


@dataclass(frozen=True)
class EqualJitter:
    """``v/2 + uniform(0, v/2)``: spread *and* at least half of the wait, so retries outlive an outage."""

    def spread(self, value: float, *, base: float, cap: float, previous: float | None, uniform: Uniform) -> float:
        return value / 2 + uniform(0.0, value / 2)


@dataclass(frozen=True)
class DecorrelatedJitter:
    """``min(cap, uniform(base, previous * 3))``: grows from the delay before instead of from the attempt.

    The formulas and their comparison are from Marc Brooker, "Exponential Backoff And Jitter",
    AWS Architecture Blog, 2015.
    """

    def spread(self, value: float, *, base: float, cap: float, previous: float | None, uniform: Uniform) -> float:
        return min(cap, uniform(base, max(base, (base if previous is None else previous) * 3)))


JITTERS: dict[str, Jitter] = {
    "full": FullJitter(),
    "equal": EqualJitter(),
    "decorrelated": DecorrelatedJitter(),
}


def jitter_of(value: object) -> Jitter:
    """Turn the short forms of ``retry_jitter`` into a policy.

    Args:
        value: ``True`` (full, as in Celery), ``False``, ``"full"``, ``"equal"``, ``"decorrelated"``, or an
            object with a ``spread`` method.

    Raises:
        ValueError: it is none of these.
    """
    if value is True:
        return JITTERS["full"]
    if value is False or value is None:
        return NoJitter()
    if isinstance(value, str) and value in JITTERS:
        return JITTERS[value]
    if isinstance(value, Jitter) and not isinstance(value, type):
        return value
    names = ", ".join(repr(name) for name in JITTERS)
    raise ValueError(f"{value!r} is not a jitter; give True, False, {names} or an object with a spread() method")


@runtime_checkable
class DelayPolicy(Protocol):
    """Anything that can say how long to wait; :class:`Backoff` is the one that is built in."""

    def delay(self, retry: int, *, previous: float | None = None, uniform: Uniform = random.uniform) -> int:
        """Return whole seconds, at least 1, before retry number ``retry``, counted from 0."""
        ...


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff: ``v = min(cap, base * factor ** retry)``, spread by a jitter, in whole seconds.

    Raises:
        ValueError: the numbers make no sense together; the sentence says which and what to give.
    """

    base: float = 1.0
    """Seconds before the first retry."""

    factor: float = 2.0
    """By how much each further delay grows; 1 keeps it constant."""

    floor: int = 1
    """The shortest delay, in whole seconds."""

    cap: float = 600.0
    """The longest delay, in seconds."""

    jitter: Jitter = field(default_factory=EqualJitter)

    def __post_init__(self) -> None:
        _check(self.base, lambda base: base > 0, "base", "more than 0 seconds")
        _check(self.factor, lambda factor: factor >= 1, "factor", "1 or more")
        _check(
            self.floor,
            lambda floor: floor >= 1 and floor == int(floor),
            "floor",
            "a whole number of seconds, 1 or more",
        )
        _check(self.cap, lambda cap: cap >= self.floor, "cap", f"at least the floor of {self.floor} second(s)")

    def nominal(self, retry: int) -> float:
        """Return the delay in seconds before retry ``retry``, before jitter and rounding."""
        try:
            return min(self.cap, self.base * float(self.factor) ** retry)  # an int would be computed to its last digit
        except OverflowError:
            return self.cap

    def delay(self, retry: int, *, previous: float | None = None, uniform: Uniform = random.uniform) -> int:
        """Return whole seconds, between ``floor`` and ``cap``, before retry number ``retry``, counted from 0.

        Args:
            retry: 0 for the first retry.
            previous: the delay before the last retry in seconds, if there was one.
            uniform: where randomness comes from.
        """
        value = self.jitter.spread(
            self.nominal(retry), base=self.base, cap=self.cap, previous=previous, uniform=uniform
        )
        return max(self.floor, min(math.floor(self.cap), round(value)))

    def schedule(self, retries: int, uniform: Uniform = random.uniform) -> Iterator[int]:
        """Yield the delays of a task that fails ``retries`` times, in whole seconds."""
        previous: float | None = None
        for retry in range(retries):
            previous = self.delay(retry, previous=previous, uniform=uniform)
            yield int(previous)


def _check(value: object, is_right: Callable[[float], bool], name: str, remedy: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not is_right(value):  # type: ignore[arg-type]  # it is a number by now
        raise ValueError(f"a {name} of {value!r} makes no sense; give {remedy}")
