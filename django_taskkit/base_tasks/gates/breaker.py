"""Circuit breakers: while a dependency is out, its tasks aren't run at all but for a few probes."""

from __future__ import annotations

import functools
import time
import uuid
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any, Final

from django_taskkit.base_tasks.gates import Gate, Outcome, Run, Wait
from django_taskkit.base_tasks.gates.breaker_view import view_of
from django_taskkit.base_tasks.gates.circuit import Circuit, Limits, State, dump, load
from django_taskkit.base_tasks.gates.named import check_name, gate_named_by, is_number, named_by, seconds
from django_taskkit.exceptions import ConfigurationError, StoreError
from django_taskkit.signals import BreakerChanged, breaker_changed
from django_taskkit.stores import PREFIX, update
from django_taskkit.stores.opening import shared_store
from django_taskkit.stores.pausing import stands_open

__all__ = ["BreakerGate", "CircuitBreaker", "State", "breaker_of", "gate_of"]

FIRST_WAIT: Final = 2.0
"""Seconds, about, that messages are spread over when they come back, and that those wait for whom no probe is left."""

_FAILURES: Final = (Outcome.RETRIED, Outcome.EXHAUSTED)
_SUCCESSES: Final = (Outcome.SUCCEEDED, Outcome.DIED)  # who refuses for good has answered


@dataclass(frozen=True)
class CircuitBreaker:
    """Keeps tasks from calling a dependency that fails, shared by name over all workers.

    It opens when at least ``failure_rate`` of the calls of the last ``window`` failed, by errors that are retried, and
    there were ``minimum_calls`` of them. While it is open no body runs: messages wait in the outbox and use up no
    retries. After ``open_for`` it is half open: ``probes`` bodies run; if all succeed it is closed, if one fails it is
    open again, twice as long each time, up to ``open_for_max``.

    Args:
        name: of the dependency; tasks with the same name share the breaker.
        failure_rate: above 0, up to 1.
        minimum_calls: 1 or more.
        window: seconds, or a timedelta; forgotten by tenths.
        open_for: seconds, or a timedelta.
        open_for_max: seconds, or a timedelta.
        probes: 1 or more.
        lease: seconds, or a timedelta, after which the place of a probe that has not ended is free again: its worker
            may have died. Make it longer than the task takes.

    Raises:
        ConfigurationError: one of these makes no sense.
    """

    name: str
    failure_rate: float = 0.5
    minimum_calls: int = 20
    _: KW_ONLY
    window: float | timedelta = 60.0
    open_for: float | timedelta = 30.0
    open_for_max: float | timedelta = 300.0
    probes: int = 3
    lease: float | timedelta = 300.0

    def __post_init__(self) -> None:
        what = "CircuitBreaker"
        check_name(what, self.name)
        rate = self.failure_rate
        if not is_number(rate) or not 0 < rate <= 1:
            raise ConfigurationError(f"{what}(failure_rate={rate!r}) makes no sense; give a number above 0, up to 1")
        for option in ("minimum_calls", "probes"):
            count = getattr(self, option)
            if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1_000_000:
                raise ConfigurationError(f"{what}({option}={count!r}) makes no sense; give a whole number, 1 or more")
        for option in ("window", "open_for", "open_for_max", "lease"):
            object.__setattr__(self, option, seconds(what, option, getattr(self, option)))
        if self._limits.open_for > self._limits.open_for_max:
            raise ConfigurationError(
                f"{what}: open_for={self.open_for!r} is longer than open_for_max={self.open_for_max!r}; swap them"
            )

    def state(self) -> State:
        """Return the state that all workers see. An open breaker stays open until a task comes after its time.

        Raises:
            StoreError: the store is out of reach.
        """
        return load(shared_store().read(self._key)).state

    def reset(self) -> None:
        """Close it, for all workers, and forget what was counted.

        Raises:
            StoreError: the store is out of reach.
        """
        before = update(shared_store(), self._key, lambda old: (None, load(old)), ttl=self._ttl)
        view_of(self.name).forget()
        _announce(self, before, Circuit())

    @property
    def _key(self) -> str:
        return f"{PREFIX}:breaker:{self.name}"

    @property
    def _limits(self) -> Limits:
        return Limits(
            self.failure_rate,
            self.minimum_calls,
            self.window,  # type: ignore[arg-type]  # these are seconds, since __post_init__
            self.open_for,  # type: ignore[arg-type]
            self.open_for_max,  # type: ignore[arg-type]
            self.probes,
            self.lease,  # type: ignore[arg-type]
        )

    @property
    def _ttl(self) -> float:
        limits = self._limits
        return 60.0 + 2 * max(limits.window, limits.open_for_max, limits.lease)


def breaker_of(task: Any) -> CircuitBreaker | None:
    """Return the breaker that ``task`` names; None if it has none.

    Raises:
        ConfigurationError: the option is neither a name nor a CircuitBreaker.
    """
    return named_by(task, "breaker", CircuitBreaker)


def gate_of(task: Any) -> Gate | None:
    """Return what stands before the body of ``task`` for its ``breaker``; None if it has none.

    Raises:
        ConfigurationError: the option is neither a name nor a CircuitBreaker.
    """
    return gate_named_by(task, "breaker", CircuitBreaker, _gate)


class BreakerGate:
    """Lets bodies in while the breaker is closed, and probes while it is half open."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._limits = breaker._limits
        self._what = f"the breaker {breaker.name!r}"

    def enter(self, run: Run) -> None:
        view = view_of(self.breaker.name)
        if view.is_closed(time.monotonic()):
            return
        token = uuid.uuid4().hex[:12]  # not the task's id: a message that comes twice runs twice
        successes = view.take_if_due(time.monotonic(), self._limits)

        def change(circuit: Circuit, now: float) -> tuple[Circuit, bool]:
            entered = circuit.counted(successes, 0, now, self._limits).enter(token, now, self._limits)
            return (circuit, False) if entered is None else (entered, True)

        try:
            circuit, may_run = self._update(change)
        except StoreError as exc:
            stands_open(self._what, exc)
            return
        if not may_run:
            raise self._wait(circuit)
        if circuit.state is State.HALF_OPEN:
            run.request.taskkit_probe = token
        else:
            view.saw_closed(time.monotonic(), self._limits)

    def leave(self, run: Run, outcome: Outcome, *, result: Any = None, delay: float | None = None) -> Wait | None:
        succeeded = True if outcome in _SUCCESSES else False if outcome in _FAILURES else None
        probe: str | None = run.request.__dict__.pop("taskkit_probe", None)
        view = view_of(self.breaker.name)
        if probe is None and succeeded is not False:
            if succeeded:
                view.count(time.monotonic())
            return None
        successes = 0 if probe else view.take(time.monotonic(), self._limits)

        def change(circuit: Circuit, now: float) -> tuple[Circuit, None]:
            if probe is not None:
                return circuit.probed(probe, succeeded, now, self._limits), None
            return circuit.counted(successes, 1, now, self._limits), None

        try:
            circuit, _ = self._update(change)
        except StoreError as exc:
            stands_open(self._what, exc)
            return None
        if circuit.state is not State.CLOSED:
            view.forget()
        return self._wait(circuit) if outcome in _FAILURES and circuit.state is State.OPEN else None

    def _update(self, change: Any) -> tuple[Circuit, Any]:
        """Change the circuit, and tell whoever wants to know if its state is another now."""

        def swap(old: bytes | None) -> tuple[bytes | None, tuple[Circuit, Circuit, Any]]:
            before = load(old)
            after, answer = change(before, time.time())
            return (old if after == before else dump(after)), (before, after, answer)

        breaker = self.breaker
        before, after, answer = update(shared_store(), breaker._key, swap, ttl=breaker._ttl)
        _announce(breaker, before, after)
        return after, answer

    def _wait(self, circuit: Circuit) -> Wait:
        rest = circuit.rest(time.time(), self._limits)
        cap = self._limits.open_for
        return Wait(f"the breaker {self.breaker.name!r} is open", base=min(FIRST_WAIT, cap), cap=cap, at_least=rest)


@functools.lru_cache(maxsize=1024)
def _gate(option: str | CircuitBreaker) -> BreakerGate:
    return BreakerGate(option if isinstance(option, CircuitBreaker) else CircuitBreaker(option))


def _announce(breaker: CircuitBreaker, before: Circuit, after: Circuit) -> None:
    if before.state is after.state:
        return
    opened = after.state is State.OPEN
    counted = opened and before.state is State.CLOSED
    event = BreakerChanged(
        name=breaker.name,
        old=before.state.value,
        new=after.state.value,
        calls=after.calls if counted else None,
        failure_rate=after.failures / after.calls if counted else None,
        open_for=breaker._limits.open_time(after.openings) if opened else None,
    )
    breaker_changed.send_robust(sender=BreakerChanged, event=event)
