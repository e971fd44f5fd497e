"""Whether a failed run is repeated, and when: pure, from the task's rules and the facts of the failure."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from django_taskkit.backoff import Uniform
from django_taskkit.base_tasks.asked import Refusal, asked_delay
from django_taskkit.base_tasks.policy import RetryPolicy
from django_taskkit.base_tasks.rules import DEFAULT, RetryRules
from django_taskkit.base_tasks.verdicts import Permanent, Retryable, Snooze, Verdict, seconds_of

Said = float | timedelta | Verdict | type[Verdict] | None
"""What ``retry_in`` may return."""

UPWARDS = 0.1
"""Which part of the delay that an error asks for is added at most, so that not all who were told the same come back at
the same time."""

LONGEST_UPWARDS = 60.0
"""Seconds that are added at most."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """The facts of a failed run."""

    exc: BaseException | None
    now: float
    """Seconds since the epoch, as all times here."""
    retries: int = 0
    retries_by: Mapping[str, int] = field(default_factory=dict)
    """How many of ``retries`` each entry of ``retry_policies`` has caused."""
    first_failed_at: float | None = None
    expires_at: float | None = None
    previous_delay: float | None = None

    def retries_of(self, name: str) -> int:
        """Return how many retries were caused by the policy of this name."""
        if name == DEFAULT:
            return max(0, self.retries - sum(self.retries_by.values()))
        return self.retries_by.get(name, 0)


@dataclass(frozen=True, kw_only=True)
class Again:
    """Run it once more."""

    delay: float
    """Seconds from now; whole ones, unless the task itself asked for a fraction."""
    counted: bool = True
    """Whether this uses up a retry."""
    name: str = DEFAULT
    """The policy that it is counted for."""
    by_policy: bool = False
    """Whether the delay is one of the policy's own, from which the next may grow."""
    failed: bool = True
    """Whether a run failed, so that the time until the deadline runs."""


@dataclass(frozen=True)
class Dead:
    """Run it never again by itself; ``reason`` is one of the dead letter's."""

    reason: str
    verdict: Verdict | None = None
    """What ``retry_in`` said to that, if it said it in words."""

    @property
    def is_exhausted(self) -> bool:
        """Whether it would have been retried if there were retries or time left."""
        return self.reason in ("retries_exhausted", "deadline")


def decide(
    rules: RetryRules, failure: Failure, *, said: Said = None, uniform: Uniform = random.uniform
) -> Again | Dead:
    """Decide what becomes of a message whose run failed.

    The task's own verdict counts most, then what its ``retry_in`` has ``said``, what the error asks for, the policy.

    Raises:
        ValueError: ``said`` is nothing that can be waited for.
    """
    exc = failure.exc
    name: str = DEFAULT
    policy = rules.default
    if isinstance(exc, Verdict):
        verdict: Verdict | None = exc
    elif exc is not None:
        name, treatment = rules.match(exc)
        if not isinstance(treatment, RetryPolicy):
            return Dead("exception" if treatment is None else "permanent")
        policy = treatment
        verdict = verdict_of(said)
    if isinstance(verdict, Permanent):
        return Dead("permanent", None if verdict is exc or not str(verdict) else verdict)
    if isinstance(verdict, Snooze):
        return in_time(Again(delay=math.ceil(verdict.delay), counted=False, failed=False), failure)
    if policy.max_retries is not None and failure.retries_of(name) >= policy.max_retries:
        return Dead("retries_exhausted")
    if isinstance(verdict, Retryable) and verdict.delay is not None:
        again: Again | Dead = Again(delay=math.ceil(verdict.delay), name=name)
    else:
        again = delayed(rules, failure, name, policy, uniform=uniform)
    return again if isinstance(again, Dead) else in_time(again, failure, rules.retry_for, policy.retry_for)


def decide_retry(
    rules: RetryRules,
    failure: Failure,
    *,
    delay: float | None = None,
    max_retries: int | None = None,
    uniform: Uniform = random.uniform,
) -> Again | Dead:
    """Decide about a retry that the task itself asks for, whatever its options say of the error.

    Args:
        delay: seconds; None: what the error asks for, or else the policy's.
        max_retries: limits the retries of all policies together; None: the policy's own limit counts.
    """
    name, treatment = (DEFAULT, None) if failure.exc is None else rules.match(failure.exc)
    policy = treatment if isinstance(treatment, RetryPolicy) else rules.default
    used, limit = failure.retries_of(name), policy.max_retries
    if max_retries is not None:
        used, limit = failure.retries, max_retries
    if limit is not None and used >= limit:
        return Dead("retries_exhausted")
    if delay is None:
        again = delayed(rules, failure, name, policy, uniform=uniform)
        if isinstance(again, Dead):
            return again
    else:
        again = Again(delay=max(0, math.ceil(delay)), name=name)
    return in_time(again, failure, rules.retry_for, policy.retry_for)


def delayed(
    rules: RetryRules, failure: Failure, name: str, policy: RetryPolicy, *, uniform: Uniform = random.uniform
) -> Again | Dead:
    """Return the retry after the delay that the error asks for, or else the policy's; dead if it asks for none."""
    asked = None if failure.exc is None else asked_delay(failure.exc, now=failure.now)
    if isinstance(asked, Refusal):
        return Dead("permanent")
    used = failure.retries_of(name)
    delay = policy.delay(used, previous=failure.previous_delay, uniform=uniform)
    if asked is None:
        return Again(delay=delay, name=name, by_policy=True)
    seconds = min(asked, rules.retry_after_max)
    seconds += uniform(0.0, min(max(1.0, seconds * UPWARDS), LONGEST_UPWARDS))
    # Who has come back as asked and failed again is as patient as the policy: "now" may be said all through an outage.
    return Again(delay=max(1, math.ceil(seconds), delay if used else 0), name=name)


def in_time(again: Again, failure: Failure, *limits: float | timedelta | None) -> Again | Dead:
    """Return ``again``, or the death of what would run too late.

    Args:
        limits: seconds from the first failure until which it may start.
    """
    starts_at = failure.now + again.delay
    if failure.expires_at is not None and starts_at >= failure.expires_at:
        return Dead("deadline")
    first = failure.now if failure.first_failed_at is None else failure.first_failed_at
    if any(limit is not None and starts_at - first > seconds_of(limit) for limit in limits):
        return Dead("deadline")
    return again


def verdict_of(said: Said) -> Verdict | None:
    """Return what the answer of ``retry_in`` means; None: it leaves the decision to others.

    Raises:
        ValueError: it means nothing.
    """
    if said is None or isinstance(said, Verdict):
        return said
    if isinstance(said, type) and issubclass(said, Verdict) and not issubclass(said, Snooze):
        return said()
    try:
        return Retryable(delay=seconds_of(said))
    except ValueError:
        raise ValueError(
            f"retry_in() returned {said!r}, which makes no sense; return seconds, a timedelta, Permanent(...), "
            f"Snooze(seconds), Retryable(...) or None"
        ) from None
