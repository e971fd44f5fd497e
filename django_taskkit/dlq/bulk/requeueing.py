"""Requeue one chunk of dead letters: lock, publish, write down, all in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from datetime import timezone as utc_zone

from django.db import transaction
from django.utils import timezone

from django_taskkit import signals
from django_taskkit.backends.model import ready_again
from django_taskkit.dlq.bulk.publish import BulkPublisher
from django_taskkit.dlq.bulk.rows import Refusal, Taken, give_back, move, refused, take_messages, write_history
from django_taskkit.dlq.models import DeadLetterEvent, Status
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.dlq.result_states import ResultStates
from django_taskkit.envelope import DJANGO_TASK_HEADER, RESULT_HEADER
from django_taskkit.results.notices import requeued


@dataclass(frozen=True)
class Requeueing:
    """How the chunks of one call are requeued."""

    publisher: BulkPublisher
    using: str
    by: str
    queue: str | None
    eta: datetime | None
    force: bool
    even_if_ran: bool
    results: ResultStates | None
    only_at: Mapping[int, int] | None

    def requeue(self, keys: Sequence[int]) -> tuple[list[Taken], list[Refusal], str]:
        """Requeue one chunk: what was sent, what was refused, and why the broker is out of reach, if it is."""
        allowed = [Status.DEAD, Status.HELD, *([Status.REQUEUED] if self.force else [])]
        now = timezone.now()
        note = f"to queue {self.queue}" if self.queue else ""
        if self.results:
            self.results.look()
        reasons: dict[int, str] = {}
        outage = ""
        with transaction.atomic(using=self.using):
            rows, refusals = take_messages(
                self.using, keys, allowed, even_if_ran=self.even_if_ran, eta=self.eta, only_at=self.only_at
            )
            if not rows:
                return [], refusals, outage
            taken, envelopes = [row for row, _envelope in rows], [envelope for _row, envelope in rows]
            del rows
            if self.results:
                self.results.reset(envelopes)
            for envelope in envelopes:
                if (header := envelope.headers.get(RESULT_HEADER)) is not None:
                    requeued(header, envelope.task_id, self._countdown() or 0.0)

            def write_down() -> None:
                move(self.using, taken, Status.REQUEUED, is_sent=True)
                write_history(self.using, taken, DeadLetterEvent.Kind.REQUEUED, at=now, by=self.by, note=note)

            failures = self.publisher.publish_many(envelopes, self.queue, self._countdown(), meanwhile=write_down)
            for row, failure in zip(taken, failures, strict=True):
                if failure is not None:
                    reasons[row.pk] = str(failure)
                    outage = str(failure) if isinstance(failure, BrokerUnreachableError) else outage
            if reasons:
                give_back(self.using, [row for row in taken if row.pk in reasons], now)
            sent_again = (envelope for row, envelope in zip(taken, envelopes, strict=True) if row.pk not in reasons)
            ready_again({sent.task_id: sent.generation for sent in sent_again if DJANGO_TASK_HEADER in sent.headers})
        sent = [row for row in taken if row.pk not in reasons]
        for row in sent if signals.task_requeued.has_listeners() else ():
            signals.announce(
                signals.task_requeued,
                signals.Requeued(
                    task_id=row.task_id,
                    task_name=row.task_name,
                    dead_letter_id=row.pk,
                    generation=row.requeue_count + 1,
                    by=self.by,
                ),
            )
        return sent, [*refusals, *refused(self.using, reasons)], outage

    def _countdown(self) -> float | None:
        if self.eta is None:
            return None
        return max(0.0, (self.eta - datetime.now(utc_zone.utc)).total_seconds())
