"""What a terminal shows of redrives, and the loop that runs one there."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, InterfaceError, OperationalError, router
from django.db.models import Count

from django_taskkit.dlq.durable import forget_connection
from django_taskkit.dlq.models import DeadLetter
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember
from django_taskkit.dlq.redrive.outcomes import Outcomes
from django_taskkit.dlq.redrive.progress import is_abandoned, progress_of
from django_taskkit.dlq.redrive.runner import GLANCE, Runner
from django_taskkit.management.progress import Progress
from django_taskkit.management.terminal import Output, shown, table

LISTED = 50
"""Redrives that a list shows."""

REASONS = 20
"""Different reasons of refusals that are shown."""

LOOKS = 1.0
"""Seconds between looks at what became of the messages that were sent."""

LOOKING = 0.3
"""Seconds that such a look may take."""

PATIENCE = 60
"""How often in a row the database may fail, a second after each other, before a command gives up."""

State = Redrive.State

CLOSED = (State.FINISHED, State.STOPPED, State.CANCELLED)
"""States in which nothing is sent until somebody does something."""


def facts_of(redrive: Redrive) -> dict[str, Any]:
    """Return what JSON says of ``redrive``."""
    progress = progress_of(redrive)
    return {
        "id": redrive.pk,
        "state": redrive.state,
        "selection": redrive.selection,
        "created_at": redrive.created_at.isoformat(),
        "by": redrive.created_by,
        "total": progress.total,
        "left_out": redrive.left_out,
        "sent": progress.sent,
        "refused": progress.refused,
        "waiting": progress.waiting,
        "recovered": progress.recovered,
        "failed_again": progress.failed_again,
        "running": progress.running,
        "rate": progress.rate,
        "seconds_left": None if progress.eta is None else progress.eta.total_seconds(),
        "why": redrive.why,
        "refusals": refusals_of(redrive),
    }


def refusals_of(redrive: Redrive) -> dict[str, int]:
    """Return how many members were refused for which reason, the most frequent first."""
    if not redrive.refused:
        return {}
    refused = RedriveMember.objects.using(router.db_for_write(DeadLetter)).filter(
        redrive=redrive, state=RedriveMember.State.REFUSED
    )
    notes = refused.values("note").annotate(count=Count("pk")).order_by("-count", "note")
    return {row["note"]: row["count"] for row in notes[:REASONS]}


class TableOfRedrives:
    """Redrives, one per line."""

    HEADS = ("ID", "STATE", "SENT", "REFUSED", "RECOVERED", "FAILED AGAIN", "CREATED", "BY", "SELECTION")

    def __init__(self, out: Output, as_json: bool) -> None:
        self._out = out
        self._as_json = as_json

    def write(self, redrives: Any) -> None:
        rows: Iterable[Redrive] = redrives[:LISTED]
        if self._as_json:
            for redrive in rows:
                self._out.json(facts_of(redrive))
            return
        cells = [self._cells(redrive) for redrive in rows]
        if not cells:
            self._out.line("There is no redrive.")
            return
        table(self._out, self.HEADS, cells, whole=(0, 1, 2))

    def _cells(self, redrive: Redrive) -> tuple[str, ...]:
        state = f"{redrive.state} (interrupted; cancel it)" if is_abandoned(redrive) else redrive.state
        return (
            *(str(redrive.pk), state, f"{redrive.sent} of {redrive.total}", str(redrive.refused)),
            *(str(redrive.recovered), str(redrive.failed_again), f"{redrive.created_at:%Y-%m-%d %H:%M}"),
            *(redrive.created_by, redrive.selection),
        )


class Terminal:
    """Follows a redrive, and runs it meanwhile if there is a ``runner`` and no other has it."""

    def __init__(self, stream: Any, redrive: Redrive, runner: Runner | None) -> None:
        self._stream = stream
        self._redrive = redrive
        self._runner = runner
        self._outcomes = Outcomes(redrive.pk) if runner is None else runner.outcomes
        self._looked_at = float("-inf")
        self._failures = 0

    def follow(self) -> None:
        """Return when nothing is sent any more; without a runner, when all that was sent has ended as well."""
        with Progress(self._stream, self._redrive.total) as progress:
            try:
                while not self._is_over():
                    time.sleep(self._patiently(progress))
            finally:
                if self._runner is not None:
                    with suppress(DatabaseError):  # another has it after half a minute anyway
                        self._runner.lease.release()

    def _patiently(self, progress: Progress) -> float:
        """Do one step; return the seconds to wait. A database that is locked or restarted is waited for."""
        try:
            wait = self._step()
            self._redrive.refresh_from_db()
        except (OperationalError, InterfaceError) as exc:
            self._failures += 1
            if self._failures > PATIENCE:
                raise
            forget_connection(router.db_for_write(DeadLetter))
            progress.show(progress.done, shown(f"the database can't be used: {exc}"))
            return 1.0
        self._failures = 0
        progress.total = self._redrive.total
        progress.show(progress_of(self._redrive).done, self._text())
        return wait

    def _is_over(self) -> bool:
        redrive = self._redrive
        if redrive.state not in CLOSED and not is_abandoned(redrive):
            return False
        return self._runner is not None or not progress_of(redrive).running

    def _step(self) -> float:
        """Do what there is to do; return how many seconds to wait."""
        wait = 2 * GLANCE
        if self._runner is not None:
            step = self._runner.step()
            wait = step.wait if step.ours else wait
        if time.monotonic() - self._looked_at >= LOOKS:
            self._looked_at = time.monotonic()
            self._outcomes.settle_for(LOOKING)
        return wait

    def _text(self) -> str:
        redrive, progress = self._redrive, progress_of(self._redrive)
        parts = [
            f"{progress.refused} refused" if progress.refused else "",
            f"{progress.recovered} recovered",
            f"{progress.failed_again} failed again" if progress.failed_again else "",
            f"{progress.running} running",
            f"{progress.rate:.3g}/s" if progress.rate else "",
            f"{progress.eta} left" if progress.eta and progress.waiting else "",
            "" if redrive.state in (State.RUNNING, State.FINISHED) else str(redrive.state),
            shown(redrive.why),
        ]
        return ", ".join(filter(None, parts))
