"""A beat's sign of life, written as its loop turns."""

from __future__ import annotations

import os
import socket

from django_taskkit.beat import turns
from django_taskkit.beat.lease import Standing
from django_taskkit.observability.health.signs import SignOfLife

_signs: dict[int, SignOfLife] = {}
"""By process: a worker may have forked it."""


def install() -> None:
    """Have every beat of this process give a sign of life; doing it twice changes nothing."""
    if note not in turns.listeners:
        turns.listeners.append(note)
        turns.ending.append(end)


def note(standing: Standing, next_due_at: float | None) -> None:
    pid = os.getpid()
    if pid not in _signs:
        _signs.clear()
        _signs[pid] = SignOfLife("beat", socket.gethostname())
    if _signs[pid].is_due():
        _signs[pid].write({"standing": standing.value, "next_due_at": next_due_at})


def end() -> None:
    """Take it away; what is killed leaves it."""
    if sign := _signs.pop(os.getpid(), None):
        sign.remove()
