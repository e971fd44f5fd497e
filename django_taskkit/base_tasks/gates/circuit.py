"""A circuit that opens while a dependency fails: a pure state machine, with the clock handed in.

Closed, it counts calls and failures over a window of ten slices. Open, nobody gets in. When its time is up it is half
open: as many bodies as there are probes get in; all succeed and it is closed, one fails and it is open for longer.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, replace
from typing import Any, Final

SLICES: Final = 10
"""Parts of the window; a whole part is forgotten at a time."""


class State(str, enum.Enum):
    """What a circuit breaker does with the bodies of its tasks."""

    CLOSED = "closed"
    """All may run."""
    OPEN = "open"
    """None may run."""
    HALF_OPEN = "half_open"
    """A few may run, to find out whether the dependency is back."""


@dataclass(frozen=True)
class Limits:
    """What a circuit follows; the same in each process. Times are in seconds."""

    failure_rate: float
    minimum_calls: int
    window: float
    open_for: float
    open_for_max: float
    probes: int
    lease: float

    def open_time(self, openings: int) -> float:
        """Return for how long it is open when it has opened ``openings`` times in a row, 1 or more."""
        return min(self.open_for_max, self.open_for * 2.0 ** min(openings - 1, 64))


@dataclass(frozen=True)
class Slice:
    """What happened in one part of the window, numbered since the epoch."""

    number: int
    calls: int
    failures: int


@dataclass(frozen=True)
class Circuit:
    """One circuit at one moment; times are in seconds since the epoch."""

    state: State = State.CLOSED
    slices: tuple[Slice, ...] = ()
    until: float = 0.0
    """Open: when the probes may begin."""
    openings: int = 0
    """How often it has opened since it was last closed."""
    leases: tuple[tuple[str, float], ...] = ()
    """Half open: the probes under way, and when each is given up for dead."""
    passed: int = 0
    """Half open: the probes that succeeded."""

    @property
    def calls(self) -> int:
        return sum(part.calls for part in self.slices)

    @property
    def failures(self) -> int:
        return sum(part.failures for part in self.slices)

    def rest(self, now: float, limits: Limits) -> float:
        """Return the seconds until probes may begin: 0 unless it is open."""
        rest = self.until - now
        # A time further away than any that it could be comes from a host whose clock is wrong.
        return rest if self.state is State.OPEN and 0 < rest <= limits.open_time(max(1, self.openings)) else 0.0

    def enter(self, token: str, now: float, limits: Limits) -> Circuit | None:
        """Return the circuit after a body was let in, under ``token`` if that is a probe; None to turn it away."""
        if self.state is State.CLOSED:
            return self
        if self.state is State.OPEN:
            if self.rest(now, limits):
                return None
            half_open = Circuit(State.HALF_OPEN, openings=self.openings)
        else:
            half_open = replace(self, leases=self._living(now, limits))
        if half_open.passed + len(half_open.leases) >= limits.probes:
            return None
        return replace(half_open, leases=(*half_open.leases, (token, now + limits.lease)))

    def probed(self, token: str, succeeded: bool | None, now: float, limits: Limits) -> Circuit:
        """Take note of how the probe ``token`` ended; None: it says nothing about the dependency."""
        if self.state is not State.HALF_OPEN or token not in dict(self.leases):
            return self
        left = replace(self, leases=tuple(lease for lease in self.leases if lease[0] != token))
        if succeeded is None:
            return left
        if not succeeded:
            return self._opened(now, limits)
        passed = left.passed + 1
        return Circuit() if passed >= limits.probes else replace(left, passed=passed)

    def counted(self, successes: int, failures: int, now: float, limits: Limits) -> Circuit:
        """Take note of bodies that were let in while it was closed."""
        if self.state is not State.CLOSED or not (successes or failures):
            return self
        number = int(now // (limits.window / SLICES))
        slices = {part.number: part for part in self.slices if number - SLICES < part.number <= number + 1}
        before = slices.get(number, Slice(number, 0, 0))
        slices[number] = Slice(number, before.calls + successes + failures, before.failures + failures)
        closed = replace(self, slices=tuple(sorted(slices.values(), key=lambda part: part.number)))
        too_many = closed.failures >= limits.failure_rate * closed.calls
        # A success opens nothing: it may only be the one that makes the calls enough to judge.
        return closed._opened(now, limits) if failures and closed.calls >= limits.minimum_calls and too_many else closed

    def _opened(self, now: float, limits: Limits) -> Circuit:
        openings = self.openings + 1
        return Circuit(State.OPEN, until=now + limits.open_time(openings), openings=openings, slices=self.slices)

    def _living(self, now: float, limits: Limits) -> tuple[tuple[str, float], ...]:
        return tuple(lease for lease in self.leases if now < lease[1] <= now + 2 * limits.lease)


def load(value: bytes | None) -> Circuit:
    """Return the circuit that was dumped; a closed one for None, and for what can't be read."""
    if value is None:
        return Circuit()
    try:
        raw: dict[str, Any] = json.loads(value)
        return Circuit(
            state=State(raw["state"]),
            slices=tuple(Slice(*map(int, part)) for part in raw["slices"]),
            until=float(raw["until"]),
            openings=int(raw["openings"]),
            leases=tuple((str(token), float(until)) for token, until in raw["leases"]),
            passed=int(raw["passed"]),
        )
    except (ValueError, TypeError, KeyError):
        return Circuit()


def dump(circuit: Circuit) -> bytes | None:
    """Return what :func:`load` reads; None for a circuit that says nothing."""
    if circuit == Circuit():
        return None
    raw = {
        "state": circuit.state.value,
        "slices": [(part.number, part.calls, part.failures) for part in circuit.slices],
        "until": circuit.until,
        "openings": circuit.openings,
        "leases": circuit.leases,
        "passed": circuit.passed,
    }
    return json.dumps(raw, separators=(",", ":")).encode()
