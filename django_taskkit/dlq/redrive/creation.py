"""Make a redrive: which dead letters are in it is settled here, once."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from datetime import datetime
from os import getpid
from typing import Any

from django.db import connections, router, transaction
from django.db.models import BigIntegerField, Count, Exists, F, Max, OuterRef, Q, QuerySet, Value
from django.utils import timezone

from django_taskkit.dlq.models import DeadLetter, Status
from django_taskkit.dlq.pause import Gaps
from django_taskkit.dlq.redrive.lease import LEASE
from django_taskkit.dlq.redrive.model import Redrive, RedriveMember
from django_taskkit.dlq.text import bounded, storable

RANGE = 10_000
"""Dead letters that one transaction puts into a redrive: long enough to be fast, short enough to lock nobody out."""

REQUEUABLE = (Status.DEAD, Status.HELD)


def create_redrive(
    queryset: QuerySet[DeadLetter],
    *,
    selection: str = "",
    by: Any = None,
    rate: float | None = None,
    canary: bool = False,
    queue: str | None = None,
    not_before: datetime | None = None,
    despite_preflight: bool = False,
    even_if_ran: bool = False,
    reset_results: bool = False,
    holder: str = "",
    clock: Callable[[], datetime] = timezone.now,
) -> Redrive:
    """Make a redrive of the dead letters that ``queryset`` finds now; whoever runs redrives then runs it.

    Only letters that are *dead* or *held* and died before this call are in it, and none that another unfinished redrive
    has. If this is interrupted, the redrive stays *preparing* and is never run.

    Args:
        queryset: dead letters, filtered and not sliced.
        selection: what was chosen, in words.
        by: who does it, a user or a name.
        rate: messages per second; None for as fast as it goes.
        canary: send 1, then 5, 25, and so on, and wait for each to succeed.
        queue: another queue than the one each message came from.
        not_before: when the tasks may run.
        despite_preflight: also what the preflight calls red.
        even_if_ran: also letters whose task had ended well.
        reset_results: forget the failures that the result backend has.
        holder: the runner that is to have it at first; others wait until its lease is over.

    Raises:
        ValueError: ``rate`` is not above 0, or ``queryset`` is sliced.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"rate is {rate}; give a number of messages per second above 0, or None")
    if queryset.query.is_sliced:
        raise ValueError("the queryset is sliced; filter it instead, for example by died_at or pk")
    using = router.db_for_write(DeadLetter)
    name = getattr(by, "get_username", None)
    now = clock()
    preparing = holder or f"{socket.gethostname()}:{getpid()} {uuid.uuid4().hex[:8]}"
    redrive = Redrive.objects.using(using).create(
        selection=storable(selection),
        created_at=now,
        created_by=bounded(name() if name else by, 200),
        rate=rate,
        canary=canary,
        queue=queue or "",
        not_before=not_before,
        despite_preflight=despite_preflight,
        even_if_ran=even_if_ran,
        reset_results=reset_results,
        held_by=preparing,
        held_until=now + LEASE,
    )
    own = Redrive.objects.using(using).filter(pk=redrive.pk, state=Redrive.State.PREPARING)
    if _fill(redrive, queryset.using(using), own, clock):
        held: dict[str, Any] = {"held_until": clock() + LEASE} if holder else {"held_by": "", "held_until": None}
        own.update(state=Redrive.State.RUNNING, **held)
    redrive.refresh_from_db(using=using)
    return redrive


def _fill(
    redrive: Redrive, queryset: QuerySet[DeadLetter], own: QuerySet[Redrive], clock: Callable[[], datetime]
) -> bool:
    """Put the letters into it, a range of keys at a time; False if somebody cancels it meanwhile."""
    using = redrive._state.db or ""
    gaps = Gaps(connections[using].vendor)
    rows = queryset.filter(status__in=REQUEUABLE, died_at__lte=redrive.created_at).order_by()
    if rows.query.distinct or rows.query.group_by:
        rows = DeadLetter.objects.using(using).filter(pk__in=rows.values("pk"))
    # What is written later is not in it, whatever the clocks of workers say.
    newest = DeadLetter.objects.using(using).aggregate(newest=Max("pk"))["newest"]
    last = 0
    while newest is not None:
        gaps.leave()
        rest = rows.filter(pk__gt=last, pk__lte=newest)
        found = rest.order_by("pk")[:RANGE].aggregate(last=Max("pk"), count=Count("pk"))
        if not found["count"]:
            break
        with transaction.atomic(using=using):
            count = _insert(redrive, rest.filter(pk__lte=found["last"]), (last, found["last"]), using, clock())
            if not own.update(
                total=F("total") + count,
                left_out=F("left_out") + max(0, found["count"] - count),
                held_until=clock() + LEASE,
            ):
                return False
        last = found["last"]
    return True


def _insert(redrive: Redrive, rows: QuerySet[DeadLetter], keys: tuple[int, int], using: str, now: datetime) -> int:
    """INSERT … SELECT, which Django's ORM has no words for; the SELECT is the ORM's. ``rows`` are between ``keys``."""
    chosen = rows.annotate(
        taskkit_redrive=Value(redrive.pk, output_field=BigIntegerField()),
        taskkit_state=Value(RedriveMember.State.WAITING.value),
    )
    unfinished = Redrive.objects.using(using).filter(_unfinished(now)).exclude(pk=redrive.pk)
    if others := list(unfinished.values_list("pk", flat=True)):
        waiting = RedriveMember.objects.using(using).filter(redrive__in=others, state=RedriveMember.State.WAITING)
        # Said once more, or PostgreSQL would read all members that there are, for each range.
        waiting = waiting.filter(dead_letter_id__gt=keys[0], dead_letter_id__lte=keys[1])
        chosen = chosen.filter(~Exists(waiting.filter(dead_letter=OuterRef("pk"))))
    # In their order, so that they are sent in it.
    values = chosen.order_by("pk").values_list("pk", "fingerprint", "requeue_count", "taskkit_redrive", "taskkit_state")
    sql, params = values.query.get_compiler(using=using).as_sql()
    connection = connections[using]
    names = ("dead_letter", "fingerprint", "generation", "redrive", "state")
    fields = [RedriveMember._meta.get_field(name) for name in names]
    columns = ", ".join(connection.ops.quote_name(str(getattr(field, "column", ""))) for field in fields)
    table = connection.ops.quote_name(RedriveMember._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {table} ({columns}) {sql}", params)
        return max(0, int(cursor.rowcount))


def _unfinished(now: datetime) -> Q:
    """Select redrives that may still send something; one whose preparation was interrupted never does."""
    state = Redrive.State
    waiting = Q(state__in=[state.RUNNING, state.PAUSED, state.STOPPED])
    return waiting | Q(state=state.PREPARING, held_until__gt=now)
