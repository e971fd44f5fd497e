"""The same thing is not done twice: while one run goes on, or after one has succeeded within a window.

A task says by which of its arguments two calls are the same::

    @shared_task(base=BaseTaskWithRetry, idempotency_key=("order_id",))
    def charge(order_id, note=""): ...

The key belongs to a task *id*: whatever happens to that message (retries, redelivery, requeueing), it passes. Others
with the same key wait while it is under way, and end with its result once it has succeeded. If it dies the next one
runs. Messages are still delivered at least once: a body that was killed half way runs again, under the same key.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, router

from django_taskkit.base_tasks.gates import Answer, Outcome, Run, Wait
from django_taskkit.base_tasks.gates.claims import Claim, finish, release, renew, take
from django_taskkit.base_tasks.gates.keys import CallKey, call_key_of
from django_taskkit.base_tasks.verdicts import seconds_of
from django_taskkit.envelope import GENERATION_HEADER
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.models import DeadLetter
from django_taskkit.stores import Change, Store, update
from django_taskkit.stores.opening import shared_store
from django_taskkit.stores.pausing import Warnings
from django_taskkit.stores.renewal import AGAIN, Duties, Duty, renewer

logger = logging.getLogger("django_taskkit")

WINDOW = timedelta(days=1)
"""For how long a success answers for its duplicates, unless the task says otherwise."""

LEASE = 60.0
"""Seconds after which the key of a killed process is free, unless the task says otherwise."""

RENEWALS_PER_LEASE = 3

LATENESS = 300.0
"""Seconds, beside a lease, that a retry may come late (a busy relay, a long queue) and still find its key. Only the
order depends on it: a retry that comes later may find that a duplicate has run in its place."""

FIRST_WAIT, LONGEST_WAIT = 2.0, 60.0
"""Seconds that a duplicate waits; the longest is how late it may notice that the key is free."""

WITHOUT_STORE = ("wait", "run")


@dataclass(frozen=True, kw_only=True)
class IdempotencyGate:
    """Lets one of all runs with the same key pass."""

    key: CallKey
    window: float
    """Seconds; 0: duplicates aren't answered, they run one after the other."""
    lease: float
    without_store: str = "wait"
    store: Callable[[], Store] = shared_store
    duties: Duties = renewer

    def enter(self, run: Run) -> Answer | None:
        """Claim the key of this call.

        Raises:
            Wait: another task has it, or nobody can say.
            Exception: what the task's own key function raises, or that the key can't be written: such a run fails.
        """
        key = self.key(run.args, run.kwargs)
        if key is None:
            return None
        generation = getattr(run.request, GENERATION_HEADER, None)
        mine = Claim(holder=str(run.request.id), generation=generation if isinstance(generation, int) else 0)
        try:
            other = self._change(key, take(mine), self.lease)
            if other is not None and not other.done and has_died(other):
                logger.info("task %s[%s] takes the key of %s, which is dead", run.task.name, mine.holder, other.holder)
                other = self._change(key, take(mine, instead_of=other), self.lease)
        except StoreError as exc:
            waits = self.without_store == "wait"
            _warn(exc, run.task.name, "they wait" if waits else "they run")
            if waits:
                raise Wait("who has its idempotency key can't be said", base=FIRST_WAIT, cap=LONGEST_WAIT) from exc
            other = None
        if other is None:
            self._hold(run, key, mine)
            return None
        if other.done:
            return Answer(other.answer)
        raise Wait(f"task {other.holder} has its idempotency key", base=FIRST_WAIT, cap=LONGEST_WAIT)

    def leave(self, run: Run, outcome: Outcome, *, result: Any = None, delay: float | None = None) -> Wait | None:
        """Keep the key for the window, or until the next run of this task, or free it; raises nothing."""
        held: Held | None = run.request.__dict__.pop("taskkit_claim", None)
        if held is None:
            return None
        self.duties.remove(held.duty)
        change: Change[bool] = release(held.claim)
        ttl = patience = self.lease
        if outcome is Outcome.SUCCEEDED and self.window:
            change, ttl, patience = finish(held.claim, result), self.window, self.window
        elif outcome in (Outcome.RETRIED, Outcome.SNOOZED):
            # Not to be written once the next run may have begun, which claims the key itself.
            patience = delay or 0.0
            change, ttl = renew(held.claim), patience + self.lease + LATENESS
        what = f"task {run.task.name}[{held.claim.holder}]"
        try:
            if not self._change(held.key, change, ttl, likely=held.claim.encode()):
                logger.warning("%s has ended, and its idempotency key was no longer its own", what)
        except StoreError as exc:
            _warn(exc, run.task.name, "what became of them is written down later")
            pause = min(AGAIN, self.lease / RENEWALS_PER_LEASE)
            until = self.duties.clock() + patience
            duty = Duty(self.store, held.key, change, ttl=ttl, every=pause, once=True, until=until, what=what)
            self.duties.add(duty)
        return None

    def _hold(self, run: Run, key: str, claim: Claim) -> None:
        duty = Duty(
            self.store,
            key,
            renew(claim),
            ttl=self.lease,
            every=self.lease / RENEWALS_PER_LEASE,
            owner=run.request,
            what=f"task {run.task.name}[{claim.holder}]",
        )
        run.request.taskkit_claim = Held(key=key, claim=claim, duty=duty)
        self.duties.add(duty)

    def _change(self, key: str, change: Change[Any], ttl: float, *, likely: bytes | None = None) -> Any:
        """Change the record; in one round trip if it is ``likely``, as it mostly is."""
        store = self.store()
        new, answer = change(likely)
        if new != likely and store.swap(key, likely, new, ttl=ttl):
            return answer
        return update(store, key, change, ttl=ttl)


@dataclass(frozen=True, kw_only=True)
class Held:
    """What one run has claimed; kept on its request."""

    key: str
    claim: Claim
    duty: Duty


def has_died(claim: Claim) -> bool:
    """Say whether the holder of ``claim`` is a dead letter, so that it won't run again by itself.

    A holder that has been requeued since is not, unless the claim is older than that.
    """
    try:
        rows = DeadLetter.objects.using(router.db_for_write(DeadLetter))
        row = rows.filter(task_id=claim.holder).values_list("status", "requeue_count").first()
    except (DatabaseError, InterfaceError, ImproperlyConfigured, OSError) as exc:
        logger.warning("whether task %s is a dead letter can't be said: %s", claim.holder, exc)
        return False
    if row is None:
        return False
    status, requeued = row
    return requeued > claim.generation or (requeued == claim.generation and status != "requeued")


def gate_of(task: Any) -> IdempotencyGate | None:
    """Return the gate of ``task``; None if it has no ``idempotency_key``.

    Raises:
        ConfigurationError: an option makes no sense.
    """
    if task.idempotency_key is None:
        return None
    options: tuple[Any, ...] = tuple(getattr(task, name, default) for name, default in _DEFAULTS.items())
    known: tuple[tuple[Any, ...], IdempotencyGate] | None = vars(task).get("_idempotency_gate")
    if known is not None and known[0] == options:
        return known[1]
    window, lease, without_store = options[1:]
    if without_store not in WITHOUT_STORE:
        raise ConfigurationError(
            f"{task.name}: idempotency_without_store: {without_store!r} makes no sense; give 'wait' or 'run'"
        )
    gate = IdempotencyGate(
        key=call_key_of(task),
        window=_seconds(task, "idempotency_window", 0 if window is None else window),
        lease=_seconds(task, "idempotency_lease", lease),
        without_store=without_store,
    )
    if gate.lease < 1:
        raise ConfigurationError(
            f"{task.name}: idempotency_lease: {lease!r} makes no sense; give at least 1 second, and more than a run "
            f"may keep all other threads of its process from running"
        )
    vars(task)["_idempotency_gate"] = (options, gate)  # what the options mean; nothing of a run
    return gate


_DEFAULTS = {
    "idempotency_key": None,
    "idempotency_window": WINDOW,
    "idempotency_lease": LEASE,
    "idempotency_without_store": "wait",
}


_warnings = Warnings()


def _warn(exc: StoreError, task_name: str, what: str) -> None:
    # The sentence of an error that isn't about the configuration names the key, and so arguments, which no log needs.
    cause = exc if isinstance(exc, ConfigurationError) else type(exc.__cause__ or exc).__name__
    message = "whether tasks %s are duplicates can't be said (%s): %s"
    _warnings.say(f"{task_name}: {what}", message, task_name, cause, what)


def _seconds(task: Any, name: str, value: Any) -> float:
    try:
        return seconds_of(value)
    except ValueError as exc:
        raise ConfigurationError(f"{task.name}: {name}: {exc}") from None
