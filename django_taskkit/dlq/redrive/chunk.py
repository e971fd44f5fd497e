"""Send some members of a redrive, and note what became of them.

A member is *waiting* until its dead letter was requeued or refused. The requeue is committed first, with an entry in
the history that names the redrive, and the member is changed after it. A crash in between leaves members that wait and
whose letters were requeued: the entry tells that, so nothing is sent twice or counted as refused.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from celery import Celery
from django.db import router, transaction
from django.db.models import F

from django_taskkit.dlq import transitions
from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent, Status
from django_taskkit.dlq.preflight import BATCH, COLUMNS, Color, Preflight
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember
from django_taskkit.dlq.text import bounded

logger = logging.getLogger("django_taskkit")

CHUNK = 500
"""Messages that are sent before anybody asks again whether the redrive is to go on."""

State = RedriveMember.State


@dataclass(frozen=True)
class Booked:
    """What a chunk did."""

    sent: int = 0
    refused: int = 0
    tried: int = 0
    """Members that it took up; 0 when none waits any more."""
    outage: str = ""
    """Why the broker could not be used; what it did not take still waits."""


@dataclass(frozen=True)
class _Member:
    pk: int
    letter: int
    before: int
    """How often the letter had been requeued when it was chosen."""


def name_of(redrive: Redrive) -> str:
    """Return who requeues, for the history of the dead letters; it is what tells this redrive's requeues."""
    own = f"redrive {redrive.pk}"
    return bounded(f"{redrive.created_by} ({own})" if redrive.created_by else own)


def send_chunk(redrive: Redrive, limit: int, app: Celery, preflight: Preflight | None, now: datetime) -> Booked:
    """Requeue the next ``limit`` members that wait; without ``preflight`` nothing is looked at before.

    Raises whatever the database does. Messages that were sent by then are found by :func:`reconcile`.
    """
    members = _waiting(redrive, min(limit, CHUNK))
    if not members:
        return Booked()
    refused = _grounded(members, preflight) if preflight is not None else {}
    ready = [member.letter for member in members if member.letter not in refused]
    outage = ""
    if ready:
        letters = DeadLetter.objects.using(_using()).filter(pk__in=ready)
        # What somebody else has requeued and died again is a later failure, which is not in this redrive.
        chosen = {member.letter: member.before for member in members}
        report = transitions.requeue(letters, by=name_of(redrive), only_at=chosen, app=app, **_options(redrive, now))
        outage = report.outage
        for refusal in report.refused:
            if refusal.reason != outage:
                refused[refusal.dead_letter.pk] = refusal.reason
    return _book(redrive, members, refused, outage)


def reconcile(redrive: Redrive) -> Booked:
    """Note what a runner that is gone had sent and not noted; at most one chunk."""
    return _book(redrive, _waiting(redrive, CHUNK), {}, "")


def _waiting(redrive: Redrive, limit: int) -> list[_Member]:
    rows = RedriveMember.objects.using(_using()).filter(redrive=redrive, state=State.WAITING)
    return [_Member(*row) for row in rows.order_by("pk").values_list("pk", "dead_letter_id", "generation")[:limit]]


def _options(redrive: Redrive, now: datetime) -> dict[str, Any]:
    options: dict[str, Any] = {
        "queue": redrive.queue or None,
        "not_before": redrive.not_before if redrive.not_before and redrive.not_before > now else None,
        "even_if_ran": redrive.even_if_ran,
        "reset_results": redrive.reset_results,
    }
    return {name: value for name, value in options.items() if value}


def _grounded(members: Sequence[_Member], preflight: Preflight) -> dict[int, str]:
    """Return the letters that preflight calls red, with the reasons; few whole messages are in memory at a time."""
    refused: dict[int, str] = {}
    keys = [member.letter for member in members]
    for start in range(0, len(keys), BATCH):
        letters = DeadLetter.objects.using(_using()).only(*COLUMNS)
        for letter in letters.filter(pk__in=keys[start : start + BATCH]):
            try:
                verdict = preflight.verdict(letter)
            except Exception:  # one odd letter must not hold up all the others: requeue decides
                logger.exception("preflight could not look at %s", letter)
                continue
            if verdict.color is Color.RED:
                red = [finding.text for finding in verdict.findings if finding.color is Color.RED]
                refused[letter.pk] = " ".join(red)
    return refused


def _book(redrive: Redrive, members: Sequence[_Member], refused: dict[int, str], outage: str) -> Booked:
    using = _using()
    generations = _sent_by(redrive, {member.letter: member.before for member in members})
    sent: dict[int, list[int]] = defaultdict(list)
    notes: dict[str, list[int]] = defaultdict(list)
    for member in members:
        if member.letter in generations:
            sent[generations[member.letter]].append(member.pk)
        elif member.letter in refused:
            notes[bounded(refused[member.letter])].append(member.pk)
    counts = {State.SENT: 0, State.REFUSED: 0}
    # By their keys alone: PostgreSQL would read all that waits in the redrive while it has no statistics of it yet.
    waiting = RedriveMember.objects.using(using).filter(state=State.WAITING)
    with transaction.atomic(using=using):
        # Whoever comes second, of two that did the same chunk, changes no member and counts none.
        for generation, keys in sent.items():
            counts[State.SENT] += waiting.filter(pk__in=keys).update(state=State.SENT, generation=generation)
        for note, keys in notes.items():
            counts[State.REFUSED] += waiting.filter(pk__in=keys).update(state=State.REFUSED, note=note)
        if any(counts.values()):
            Redrive.objects.using(using).filter(pk=redrive.pk).update(
                sent=F("sent") + counts[State.SENT], refused=F("refused") + counts[State.REFUSED]
            )
    return Booked(sent=counts[State.SENT], refused=counts[State.REFUSED], tried=len(members), outage=outage)


def _sent_by(redrive: Redrive, before: Mapping[int, int]) -> dict[int, int]:
    """Return the generation of each letter that this redrive has requeued; ``before`` has those when they were chosen.

    By generations and not by times: the clock of the machine that runs it may be behind that of who made it.
    """
    own = name_of(redrive)
    events = DeadLetterEvent.objects.using(_using()).filter(
        dead_letter__in=list(before), kind=DeadLetterEvent.Kind.REQUEUED
    )
    # What was imported may tell of a redrive of another place that has the same name.
    requeues = {(letter, now): by for letter, now, by in _rows(events) if now > before[letter]}
    found = {letter: generation for (letter, generation), by in requeues.items() if by == own}
    # A message that was published while the commit failed leaves no entry; yet its recovery shows its generation.
    missing = [letter for letter in before if letter not in found]
    recovered = DeadLetter.objects.using(_using()).filter(
        pk__in=missing, status=Status.RECOVERED, requeue_count__gt=0, died_at__lte=redrive.created_at
    )
    unnoted = dict(set(recovered.values_list("pk", "requeue_count")) - requeues.keys())
    return found | {letter: now for letter, now in unnoted.items() if now > before[letter]}


def _rows(events: Any) -> list[tuple[int, int, str]]:
    return list(events.values_list("dead_letter_id", "generation", "by"))


def _using() -> str:
    return router.db_for_write(DeadLetter)
