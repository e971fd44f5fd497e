"""What became of the messages that a redrive has sent: read from the dead letters, noted in the members."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import router, transaction
from django.db.models import F

from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember

LOOK = 1_000
"""Members that one look takes in."""

State = RedriveMember.State


@dataclass
class _Ended:
    recovered: list[int] = field(default_factory=list)
    same: list[int] = field(default_factory=list)
    other: list[int] = field(default_factory=list)


class Outcomes:
    """Goes through the members of a redrive that were sent and have not ended, a bounded number at a time.

    Each look goes on where the last one ended, and begins again at the end: what runs for hours does not hide what has
    ended behind it.
    """

    def __init__(self, redrive: int) -> None:
        self.redrive = redrive
        self._after = 0

    def settle(self, limit: int = LOOK) -> int:
        """Look at ``limit`` members; return how many have ended since the last look. Any number of processes may."""
        using = router.db_for_write(DeadLetter)
        running = RedriveMember.objects.using(using).filter(state=State.SENT)
        columns = (
            *("pk", "generation", "fingerprint"),
            *("dead_letter__status", "dead_letter__requeue_count", "dead_letter__fingerprint"),
        )
        rows = list(
            running.filter(redrive=self.redrive, pk__gt=self._after).order_by("pk").values_list(*columns)[:limit]
        )
        self._after = rows[-1][0] if len(rows) == limit else 0
        ended = _Ended()
        for pk, generation, before, status, count, now in rows:
            if status == Status.REQUEUED and count == generation:
                continue
            if status == Status.RECOVERED and count == generation:
                ended.recovered.append(pk)
            elif status in (Status.DEAD, Status.HELD) and count == generation and now and now == before:
                ended.same.append(pk)
            else:  # of something else; or it was requeued once more, or discarded, which presupposes that it failed
                ended.other.append(pk)
        if not (ended.recovered or ended.same or ended.other):
            return 0
        with transaction.atomic(using=using):
            # Who comes second, of two that look at once, changes no row and counts none.
            recovered = running.filter(pk__in=ended.recovered).update(state=State.RECOVERED)
            same = running.filter(pk__in=ended.same).update(state=State.FAILED)
            other = running.filter(pk__in=ended.other).update(state=State.FAILED)
            Redrive.objects.using(using).filter(pk=self.redrive).update(
                recovered=F("recovered") + recovered,
                failed_again=F("failed_again") + same + other,
                same_again=F("same_again") + same,
            )
        return recovered + same + other

    def settle_for(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> int:
        """Look at more and more of them, for so many seconds and at most once at each; return how many have ended."""
        end = clock() + seconds
        changed = self.settle()
        while self._after and clock() < end:
            changed += self.settle()
        return changed

    def settle_first(self, limit: int) -> int:
        """Look at the first ``limit`` that had not ended by the last look; return how many have ended."""
        self._after = 0
        changed = 0
        for _turn in range(max(1, limit // LOOK)):
            changed += self.settle()
            if not self._after:
                break
        return changed
