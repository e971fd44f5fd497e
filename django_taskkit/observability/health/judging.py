"""From what a process wrote of itself to what is wrong with it. Pure, but for the look whether a process is gone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django_taskkit.process_identity import are_apart, is_gone

MAX_AGE = {"worker": 30.0, "beat": 60.0, "relay": 120.0}
"""Seconds without a sign of life; several times what passes between two signs."""

STUCK = 60.0
"""Seconds for which a worker's pool may leave everything that it was given, while it runs nothing."""

Sign = dict[str, Any]


def judge(
    signs: Sequence[Sign],
    role: str,
    now: float,
    *,
    max_age: float | None = None,
    queues: Sequence[str] = (),
    only_alive: bool = False,
) -> tuple[list[str], list[str]]:
    """Return what is well and what is not, one sentence for each process.

    Args:
        signs: what each wrote last.
        now: seconds since 1970.
        max_age: seconds without a sign of life; None: as for this role.
        queues: what a worker has to consume, each by one of them.
        only_alive: ask whether restarting the process would help, and not whether it does its work: an outage of the
            broker is no fault of it.
    """
    current = _current(signs, now, max_age or MAX_AGE[role])
    if not current:
        return [], [f"no {role} has written a sign of life"]
    well, wrong = [], []
    for sign in current:
        who = f"{role} {sign.get('name', '?')} (pid {sign.get('pid', '?')})"
        problem = _dead(sign, now, max_age or MAX_AGE[role]) or _stuck(sign, now)
        if problem is None and not only_alive:
            problem = _WORK[role](sign, now)
        if problem is None:
            well.append(f"{who} {_doing(sign)}")
        else:
            wrong.append(f"{who} {problem}")
    if role == "worker" and not wrong:
        consumed = {queue for sign in current for queue in sign.get("queues", ())}
        wrong += [f"no worker here consumes {queue}" for queue in queues if queue not in consumed]
    return well, wrong


def _current(signs: Sequence[Sign], now: float, max_age: float) -> list[Sign]:
    """Leave out what a process left behind that was killed, once another of the same name is at work."""
    alive = [sign for sign in signs if not is_gone(str(sign.get("process", "")))]
    names = {sign.get("name") for sign in alive}
    return [
        sign
        for sign in signs
        if not (sign.get("name") in names and is_gone(str(sign.get("process", ""))))
        and not any(_has_followed(other, sign, now - max_age) for other in alive)
    ]


def _has_followed(other: Sign, sign: Sign, silent_since: float) -> bool:
    """Say whether ``other`` stands where the process of ``sign`` was.

    Nobody can see whether one is gone that ran in the container before this one, or before the machine was started
    anew. It is taken to be so if it has been silent since the other began, or for longer than it may be.
    """
    return (
        (other.get("name"), other.get("host")) == (sign.get("name"), sign.get("host"))
        and are_apart(str(sign.get("process", "")), str(other.get("process", "")))
        and _began_at(sign) < _began_at(other)
        and float(sign["at"]) < max(_began_at(other), silent_since)
    )


def _began_at(sign: Sign) -> float:
    return float(sign.get("started_at") or sign["at"])


def _dead(sign: Sign, now: float, max_age: float) -> str | None:
    if is_gone(str(sign.get("process", ""))):
        return "is gone, and did not stop in good order"
    turned_at = float(sign.get("turned_at") or sign["at"])
    age, said = now - turned_at, now - float(sign["at"])
    if sign.get("stopping"):
        return None  # its loop has ended, and it lets its tasks end
    if age > max_age and not (sign.get("busy") and said <= max_age):
        return f"has not turned its loop for {age:.0f} seconds"
    return None


def _stuck(sign: Sign, now: float) -> str | None:
    if sign.get("stopping"):
        return None
    if not sign.get("pool", True):
        return "has no process in its pool"
    waiting_since = sign.get("waiting_since")
    if waiting_since is not None and now - waiting_since > STUCK:
        return (
            f"is stuck: {sign.get('reserved', 0)} messages wait for its pool, which has run nothing for "
            f"{now - waiting_since:.0f} seconds"
        )
    return None


def _worker(sign: Sign, now: float) -> str | None:
    if sign.get("stopping"):
        return "is stopping"
    if not sign.get("connected"):
        return (
            f"has had no connection to the broker for {now - float(sign.get('connected_at') or sign['at']):.0f} seconds"
        )
    if not sign.get("queues"):
        return "consumes from no queue"
    return None


def _beat(sign: Sign, now: float) -> str | None:
    if sign.get("standing") == "unsure":
        return "sends nothing, for it can't see to its lease"
    next_due_at = sign.get("next_due_at")
    if sign.get("standing") == "at work" and next_due_at is not None and now - next_due_at > MAX_AGE["beat"]:
        return f"has not sent what was due {now - next_due_at:.0f} seconds ago"
    return None


def _relay(sign: Sign, now: float) -> str | None:
    errors = sign.get("errors") or []
    return f"could not do its work: {'; '.join(map(str, errors))}"[:500] if errors else None


_WORK = {"worker": _worker, "beat": _beat, "relay": _relay}


def _doing(sign: Sign) -> str:
    role = sign.get("role")
    if sign.get("stopping"):
        return "is stopping"
    if role == "worker":
        queues = ", ".join(map(str, sign.get("queues", ()))) or "nothing"
        busy = f", busy with {sign['busy']}" if sign.get("busy") else ""
        return f"consumes {queues}; {sign.get('active', 0)} of {sign.get('reserved', 0)} tasks run{busy}"
    if role == "beat":
        return f"is {sign.get('standing', 'alive')}"
    return "is at work"
