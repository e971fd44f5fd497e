"""How long an outage may last for a task to survive it: its retries, run through many times without running it.

The outage begins with the task's first failure and each run fails at once, which is the worst case: the task has no
more time left than the sum of its delays, its *span*. An outage that lasts no longer than the span is survived, by
the last retry if by none before. Retries that come while it goes on are wasted calls, and load for whoever is trying
to get up again.

Pure and seeded: the same policy always gives the same numbers. Where no chance is involved they are exact.
"""

from __future__ import annotations

import dataclasses
import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import Any, Protocol

from django_taskkit.backoff import Uniform

SAMPLES = 10_000
"""Tasks that are run through; odds are then right within one percentage point (twice the standard error of 50 %)."""

SEED = 1

HORIZON = 2_000
"""Retries of one task that are looked at."""

DRAWS = 400_000
"""Delays that are computed at most, unless fewer than a hundred tasks would be left."""

SOON = 1.0
"""Seconds; a retry that comes as soon after a failure comes before anything can have changed."""

CERTAIN = 0.99
"""The odds that "survived" means where nothing else is said: one task in a hundred may die."""


class Scheduled(Protocol):
    """Anything that says when a task which fails each time is retried; a :class:`RetryPolicy` does."""

    def schedule(self, *, uniform: Uniform = random.uniform) -> Iterator[int]:
        """Yield the delays in whole seconds."""
        ...


@dataclass(frozen=True)
class Spread:
    """Where something lies, in seconds."""

    least: float
    median: float
    most: float


@dataclass(frozen=True)
class Retry:
    """One retry of all tasks that were run through."""

    number: int
    """Counted from 1."""
    delay: Spread
    """Between the failure before it and its start."""
    start: Spread
    """Between the first failure and its start."""
    odds: float
    """That there is such a retry: a deadline may come before it."""
    soon: float
    """The odds that it comes within :data:`SOON` of the failure before it."""
    delays: Sequence[int] = field(repr=False)
    """All delays, in order."""

    def longer_than(self, seconds: float) -> float:
        """Return the odds that its delay is longer than that."""
        return 1 - bisect_right(self.delays, seconds) / len(self.delays)


@dataclass(frozen=True)
class Survival:
    """What a policy is good for; made by :func:`survival_of`."""

    retries: tuple[Retry, ...]
    is_exact: bool
    """No chance is involved."""
    is_endless: bool
    """Nothing ends the retries: any outage is survived."""
    is_cut: bool
    """There are more than :data:`HORIZON` retries; the numbers are those of the first ones."""
    runs: Sequence[Sequence[int]] = field(repr=False)
    """For each task that was run through, the starts of its retries in seconds from the first failure."""
    spans: Sequence[int] = field(repr=False)
    """The last of each, in order."""

    @property
    def span(self) -> Spread:
        """The time between the first failure and the last retry."""
        least, most = self.spans[0], self.spans[-1]
        if self.retries and not any(retry.odds < 1 for retry in self.retries):
            least, most = (int(pick) for pick in (self.retries[-1].start.least, self.retries[-1].start.most))
        return Spread(least, self.spans[len(self.spans) // 2], most)

    def survived(self, odds: float = CERTAIN) -> float:
        """Return the longest outage in seconds that is survived with these odds, infinity if any is."""
        if self.is_endless:
            return math.inf
        if odds >= 1:
            return self.span.least
        return float(self.spans[min(len(self.spans) - 1, math.floor((1 - odds) * len(self.spans) + 1e-9))])

    def odds(self, outage: float) -> float:
        """Return the odds that an outage of that many seconds is survived."""
        if self.is_endless:
            return 1.0
        return 1 - bisect_left(self.spans, outage) / len(self.spans)

    def wasted(self, outage: float) -> float:
        """Return the expected number of retries that come while an outage of that many seconds still goes on."""
        return sum(bisect_left(run, outage) for run in self.runs) / len(self.runs)


def survival_of(policy: Scheduled, *, samples: int = SAMPLES, seed: int = SEED) -> Survival:
    """Run through the schedule of ``policy`` for ``samples`` tasks; fewer if it has more than some forty retries."""
    draws = 0

    def lowest(low: float, high: float) -> float:
        nonlocal draws
        draws += 1
        return _low(low, high)

    extremes = [list(islice(policy.schedule(uniform=pick), HORIZON + 1)) for pick in (lowest, _high, lowest)]
    length = max(map(len, extremes))
    # A policy of somebody's own may use other randomness than what it is given.
    is_exact = not draws and extremes[0] == extremes[1] == extremes[2]
    if is_exact:
        delays = [extremes[0][:HORIZON]]
    else:
        uniform = random.Random(seed).uniform  # noqa: S311 (nothing secret)
        number = max(1, min(samples, max(100, DRAWS // max(1, length))))
        delays = [list(islice(policy.schedule(uniform=uniform), HORIZON)) for _ in range(number)]
    runs = [list(accumulate(run)) for run in delays]
    is_cut = length > HORIZON
    return Survival(
        retries=tuple(_retries(delays, runs, extremes)),
        is_exact=is_exact,
        is_endless=is_cut and _limits_nothing(policy),
        is_cut=is_cut,
        runs=runs,
        spans=sorted(run[-1] if run else 0 for run in runs),
    )


def retries_needed(policy: Any, outage: float, *, odds: float = CERTAIN, seed: int = SEED) -> int | None:
    """Return how many retries ``policy`` needs to survive an outage of that many seconds, whatever it has now.

    Args:
        policy: a dataclass with ``max_retries``.

    Returns:
        None: more than :data:`HORIZON`.
    """
    unlimited = {name: None for name in ("max_retries", "retry_for") if hasattr(policy, name)}
    endless: Any = dataclasses.replace(policy, **unlimited)
    is_worst = odds >= 1  # which is no matter of chance
    uniform: Uniform = _low if is_worst else random.Random(seed).uniform  # noqa: S311 (nothing secret)
    needed: list[int] = []
    most = 1
    while len(needed) < (1 if is_worst else max(100, min(SAMPLES, DRAWS // most))):
        starts = accumulate(islice(endless.schedule(uniform=uniform), HORIZON))
        needed.append(next((number for number, start in enumerate(starts, 1) if start >= outage), HORIZON + 1))
        most = max(most, needed[-1])
    enough = sorted(needed)[min(len(needed), max(1, math.ceil(odds * len(needed) - 1e-9))) - 1]
    return None if enough > HORIZON else enough


def _low(low: float, high: float) -> float:
    return low


def _high(low: float, high: float) -> float:
    return high


def _limits_nothing(policy: Any) -> bool:
    return all(getattr(policy, name, None) is None for name in ("max_retries", "retry_for"))


def _retries(delays: list[list[int]], runs: list[list[int]], extremes: list[list[int]]) -> Iterator[Retry]:
    ends = [(list(accumulate(run)), run) for run in extremes]
    for index in range(max(map(len, delays))):
        waits = sorted(run[index] for run in delays if len(run) > index)
        starts = sorted(run[index] for run in runs if len(run) > index)
        delay = _spread(waits, [run[index] for _, run in ends if len(run) > index])
        yield Retry(
            number=index + 1,
            delay=delay,
            start=_spread(starts, [sums[index] for sums, _ in ends if len(sums) > index]),
            odds=len(waits) / len(delays),
            soon=bisect_right(waits, SOON) / len(waits),
            delays=waits,
        )


def _spread(values: list[int], extremes: list[int]) -> Spread:
    return Spread(min([values[0], *extremes]), values[len(values) // 2], max([values[-1], *extremes]))
