"""Retry budgets: while a dependency is out, its tasks are called about once, and their retries wait."""

from __future__ import annotations

import functools
import time
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Final

from django_taskkit.base_tasks.gates import Gate, Outcome, Run, Wait
from django_taskkit.base_tasks.gates.budget_ledger import ledger_of
from django_taskkit.base_tasks.gates.named import check_name, gate_named_by, is_number, named_by, seconds
from django_taskkit.base_tasks.gates.token_bucket import Bucket, Terms, dump, load
from django_taskkit.base_tasks.verdicts import seconds_of
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.stores import PREFIX, update
from django_taskkit.stores.opening import shared_store
from django_taskkit.stores.pausing import stands_open

FORGET: Final = 3600.0
"""Seconds after the last change until a budget is full again by itself, at least."""


@dataclass(frozen=True)
class RetryBudget:
    """How many retries a dependency may get while it fails, shared by name over all workers.

    After gRPC's retry throttling (proposal A6): a failure takes one token, a success gives ``ratio``, and retries run
    only while more than half of the tokens are there. First attempts always run. A retry that is over budget waits in
    the outbox and uses up none of the task's retries.

    Args:
        name: of the dependency; tasks with the same name share the budget.
        tokens: the most that the budget holds, 2 or more; half as many failures in a row stop the retries.
        ratio: tokens for a success, above 0: the share of retries among calls that can go on for ever.
        probe_every: seconds, or a timedelta, after which one retry runs although the budget is spent.
        wait: seconds, or a timedelta, that a retry over budget waits at first; doubled each time, up to ``wait_max``.
        wait_max: the longest such wait.

    Raises:
        ConfigurationError: one of these makes no sense.
    """

    name: str
    tokens: float = 10
    ratio: float = 0.1
    _: KW_ONLY
    probe_every: float | timedelta = 5.0
    wait: float | timedelta = 30.0
    wait_max: float | timedelta = 600.0

    def __post_init__(self) -> None:
        what = "RetryBudget"
        check_name(what, self.name)
        if not is_number(self.tokens) or not 2 <= self.tokens <= 1_000_000:
            raise ConfigurationError(
                f"{what}(tokens={self.tokens!r}) makes no sense; give a number from 2 to 1 000 000"
            )
        if not is_number(self.ratio) or not 0 < self.ratio <= self.tokens:
            raise ConfigurationError(f"{what}(ratio={self.ratio!r}) makes no sense; give a number above 0, such as 0.1")
        for option in ("probe_every", "wait", "wait_max"):
            object.__setattr__(self, option, seconds(what, option, getattr(self, option)))
        if self.wait > self.wait_max:  # type: ignore[operator]  # both are seconds by now
            raise ConfigurationError(f"{what}: wait={self.wait!r} is longer than wait_max={self.wait_max!r}; swap them")

    def level(self) -> float:
        """Return how many tokens are there, between 0 and ``tokens``; retries run above half of that.

        Raises:
            StoreError: the store is out of reach.
        """
        return load(shared_store().read(self._key), self._terms).tokens

    def reset(self) -> None:
        """Fill the budget, for all workers.

        Raises:
            StoreError: the store is out of reach.
        """
        update(shared_store(), self._key, lambda old: (None, None), ttl=self._ttl)
        ledger_of(self.name).forget()

    @property
    def _key(self) -> str:
        return f"{PREFIX}:budget:{self.name}"

    @property
    def _ttl(self) -> float:
        # Who waits for longer than that must not come back to a full budget.
        return max(FORGET, 3 * seconds_of(self.wait_max), 3 * seconds_of(self.probe_every))

    @property
    def _terms(self) -> Terms:
        return Terms(self.tokens, self.ratio, self.probe_every)  # type: ignore[arg-type]


def budget_of(task: Any) -> RetryBudget | None:
    """Return the budget that ``task`` names; None if it has none.

    Raises:
        ConfigurationError: the option is neither a name nor a RetryBudget.
    """
    return named_by(task, "retry_budget", RetryBudget)


def gate_of(task: Any) -> Gate | None:
    """Return what stands before the body of ``task`` for its ``retry_budget``; None if it has none.

    Raises:
        ConfigurationError: the option is neither a name nor a RetryBudget.
    """
    return gate_named_by(task, "retry_budget", RetryBudget, _gate)


class BudgetGate:
    """Lets first attempts through, and retries while the budget is not spent."""

    def __init__(self, budget: RetryBudget) -> None:
        self.budget = budget
        self._key = budget._key
        self._ttl = budget._ttl
        self._terms = budget._terms
        self._what = f"the retry budget {budget.name!r}"

    def enter(self, run: Run) -> None:
        if run.is_first:
            return
        try:
            spent = self._is_spent_for_retry()
        except StoreError as exc:
            stands_open(self._what, exc)
            return
        if spent:
            raise self._wait()

    def leave(self, run: Run, outcome: Outcome, *, result: Any = None, delay: float | None = None) -> Wait | None:
        try:
            if outcome is Outcome.SUCCEEDED:
                self._succeeded(run)
            elif outcome in (Outcome.RETRIED, Outcome.EXHAUSTED):
                spent = self._failed()
                return self._wait() if spent else None
        except StoreError as exc:
            stands_open(self._what, exc)
        return None

    def _is_spent_for_retry(self) -> bool:
        def change(old: bytes | None) -> tuple[bytes | None, bool]:
            bucket = load(old, self._terms)
            if not bucket.is_spent(self._terms):
                return old, False
            probed = bucket.probe(self._terms, time.time())
            return (old, True) if probed is None else (dump(probed, self._terms), False)

        return update(shared_store(), self._key, change, ttl=self._ttl)

    def _failed(self) -> bool:
        ledger = ledger_of(self.budget.name)
        successes = ledger.take(time.monotonic())

        def change(old: bytes | None) -> tuple[bytes | None, Bucket]:
            bucket = load(old, self._terms).succeeded(self._terms, successes).failed(self._terms)
            return dump(bucket, self._terms), bucket

        bucket = update(shared_store(), self._key, change, ttl=self._ttl)
        ledger.seen(bucket.is_full(self._terms), time.monotonic())
        return bucket.is_spent(self._terms)

    def _succeeded(self, run: Run) -> None:
        ledger = ledger_of(self.budget.name)
        now = time.monotonic()
        if not ledger.count(now, at_once=not run.is_first):
            return
        successes = ledger.take(now)

        def change(old: bytes | None) -> tuple[bytes | None, bool]:
            bucket = load(old, self._terms)
            if bucket.is_full(self._terms):
                return old, True
            if not run.is_first:
                bucket = bucket.retry_succeeded(self._terms).succeeded(self._terms, max(0, successes - 1))
            else:
                bucket = bucket.succeeded(self._terms, successes)
            return dump(bucket, self._terms), bucket.is_full(self._terms)

        ledger.seen(update(shared_store(), self._key, change, ttl=self._ttl), now)

    def _wait(self) -> Wait:
        return Wait(
            f"the retry budget {self.budget.name!r} is spent",
            base=self.budget.wait,  # type: ignore[arg-type]
            cap=self.budget.wait_max,  # type: ignore[arg-type]
        )


@functools.lru_cache(maxsize=1024)
def _gate(option: str | RetryBudget) -> BudgetGate:
    return BudgetGate(option if isinstance(option, RetryBudget) else RetryBudget(option))
