"""Is a relay at work, and does anything wait for it: in the outbox, or in the spool?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db import router
from django.db.models import Q
from django.utils import timezone

from django_taskkit import conf
from django_taskkit.dlq import spool, spool_files
from django_taskkit.doctor.finding import Finding, error, ok, unknown, warning
from django_taskkit.doctor.site import Site
from django_taskkit.outbox.model import OutboxMessage, RelayHeartbeat
from django_taskkit.outbox.presence import REMEDY, SEEN_WITHIN

RELAY = "relay"
OUTBOX = "outbox"
SPOOL = "spool"

COUNTED = 10_000
"""Rows are counted so far; it is enough to know that there are many."""

LONG = timedelta(minutes=5)
"""A relay looks every few seconds, and one that beat starts every minute."""


def relay(site: Site) -> Iterator[Finding]:
    """``relay``: one was seen in the last two minutes, or nothing needs one."""
    taskkit = conf.current()
    rows = RelayHeartbeat.objects.using(router.db_for_read(RelayHeartbeat))
    alive = rows.filter(seen_at__gte=timezone.now() - SEEN_WITHIN).count()
    if alive:
        yield ok(RELAY, f"{alive} relay{'' if alive == 1 else 's'} seen in the last two minutes.")
        return
    last = rows.order_by("-seen_at").values_list("seen_at", flat=True).first()
    seen = f"No relay was seen since {last:%Y-%m-%d %H:%M:%S}." if last else "No relay has ever been seen."
    remedy = f"{REMEDY[0].upper()}{REMEDY[1:]}."
    if taskkit.outbox == "always" or OutboxMessage.objects.using(rows.db).exists():
        yield error(RELAY, f"{seen} What waits in the outbox is not sent.", remedy)
    else:
        yield warning(
            RELAY,
            f"{seen} Until there is one, what the broker refuses is lost, long delays stay in workers' memory, and "
            "spooled dead letters stay where they are.",
            remedy,
        )


def outbox(site: Site) -> Iterator[Finding]:
    """``outbox``: what is due is sent soon."""
    rows = OutboxMessage.objects.using(router.db_for_read(OutboxMessage)).order_by()
    now = timezone.now()
    late = rows.filter(Q(due_at__lt=now - LONG) | Q(due_at=None, created_at__lt=now - LONG))
    count = late[:COUNTED].count()
    if not count:
        waiting = rows[:COUNTED].count()
        due = f", none due for longer than {LONG.seconds // 60} minutes" if waiting else ""
        yield ok(OUTBOX, f"{_many(waiting)} in the outbox{due}.")
        return
    said = late.exclude(last_error="").order_by("pk").values_list("last_error", flat=True).first()
    why = f" The broker said of the oldest refused: {said[:300]}" if said else ""
    yield error(
        OUTBOX,
        f"{_many(count)} in the outbox, due for longer than {LONG.seconds // 60} minutes.{why}",
        f"Is a relay alive, does it reach the broker, and does it keep up? {REMEDY[0].upper()}{REMEDY[1:]}.",
    )


def spooled(site: Site) -> Iterator[Finding]:
    """``spool``: no dead letter waits to reach the database, and files could be written."""
    if problem := spool_files.problem():
        yield error(SPOOL, f"No dead letter could be kept in a file: {problem}.", "Correct TASKKIT['SPOOL_DIR'].")
        return
    files, queued = spool.waiting(site.app)
    if files is None:
        yield unknown(SPOOL, f"The folder {str(spool_files.path())!r} can't be listed.")
    elif files or queued:
        places = [f"{files} in files of this machine"] if files else []
        places += [f"{queued} in the queue {conf.current().spool_queue!r}"] if queued else []
        yield warning(
            SPOOL,
            f"Dead letters wait to reach the database: {', '.join(places)}.",
            "Is the database in order, and a relay alive? Files are brought in by the relay of their own machine: "
            "`manage.py taskkit relay --once` there.",
        )
    else:
        yield ok(
            SPOOL, "No dead letter waits in the spool" + (", as far as it can be seen." if queued is None else ".")
        )


def _many(count: int) -> str:
    if count == COUNTED:
        return f"{COUNTED} messages or more wait"
    return "1 message waits" if count == 1 else f"{count} messages wait" if count else "Nothing waits"
