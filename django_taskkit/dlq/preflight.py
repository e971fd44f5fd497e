"""What would become of a dead letter that is requeued now? Looked at beforehand; nothing is called or sent.

Red will die again or be refused, amber can't be told or is worth knowing, green is neither. A green one may still die
of what it died of: only the message is looked at, not the world.
"""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from datetime import timezone as utc_zone
from itertools import islice
from typing import Any

from celery import Celery
from celery.utils.time import maybe_iso8601
from django.db.models import QuerySet
from django.utils.translation import gettext as _
from kombu.exceptions import SerializerNotInstalled
from kombu.serialization import loads, prepare_accept_content

from django_taskkit.dlq.calls import is_call, misfit, signature_of, task_of
from django_taskkit.dlq.census import Census, Readers
from django_taskkit.dlq.models import DeadLetter, Reason, Status
from django_taskkit.dlq.text import shortened, storable
from django_taskkit.dlq.verdicts import BY_SEVERITY, MOST_FINDINGS, Color, Finding, Summary, Verdict
from django_taskkit.envelope import SAFE_CONTENT, Envelope, UndecodableError
from django_taskkit.worker.headers import wrong_header

__all__ = ["Color", "Finding", "Preflight", "Summary", "Verdict", "in_batches", "passing"]

TRUSTED_CONTENT = frozenset({"application/data", "application/text", ""})
"""Content types that kombu takes whatever ``accept_content`` says; no type at all counts as data."""

LONGEST = 1_000
"""Characters of a finding."""

BATCH = 50
"""Rows in memory at a time, with their bodies."""

COLUMNS = (
    *("task_id", "task_name", "status", "reason", "requeue_count", "body_ran", "queue", "exchange", "routing_key"),
    *("body", "content_type", "content_encoding", "headers", "properties"),
)
"""What is looked at; a row that has them loaded costs no query."""


class Preflight:
    """Looks at dead letters one after another; what a queue or a task says is asked for once.

    Args:
        app: the project's Celery app.
        queue: where they are to go, if not where each came from.
        force: those that were requeued and have not ended may be requeued as well.
        even_if_ran: those whose task had ended well may be requeued as well.
        ask: workers and broker may be asked, which takes a second or two in all. Without, nothing is said of who reads
            a queue.
    """

    def __init__(
        self,
        app: Celery,
        *,
        queue: str | None = None,
        force: bool = False,
        even_if_ran: bool = False,
        ask: bool = True,
    ) -> None:
        self._app = app
        self._queue = queue
        self._statuses = [Status.DEAD, Status.HELD, *([Status.REQUEUED] if force else [])]
        self._even_if_ran = even_if_ran
        self._census = Census(app) if ask else None
        self._signatures: dict[str, tuple[inspect.Signature, bool] | None] = {}
        self._not_here: set[str] = set()
        self._accepted = _accepted(app)

    def verdict(self, dead_letter: DeadLetter) -> Verdict:
        """Return what is to be known of ``dead_letter``; never raises for what is in it."""
        found = [*self._of_row(dead_letter), *self._of_message(dead_letter), *self._of_queue(dead_letter)]
        # Names in a message may be anything, and of any length.
        shown = (finding._replace(text=shortened(storable(finding.text), LONGEST)) for finding in found)
        return Verdict(tuple(sorted(shown, key=lambda finding: BY_SEVERITY.index(finding.color))))

    def will_fail(self, dead_letter: DeadLetter) -> bool:
        """Say whether its message would certainly die again, whatever becomes of its row and its queue."""
        return any(finding.color is Color.RED for finding in self._of_message(dead_letter))

    def summary(
        self,
        rows: QuerySet[DeadLetter] | Iterable[DeadLetter],
        *,
        limit: int | None = None,
        seconds: float | None = None,
    ) -> Summary:
        """Count what is found in ``rows``, in bounded memory, up to ``limit`` of them or for so many ``seconds``."""
        deadline = None if seconds is None else time.monotonic() + seconds
        colors: Counter[Color] = Counter()
        findings: Counter[Finding] = Counter()
        others, complete = 0, True
        for row in in_batches(rows):
            done = colors.total()
            if done == limit or (deadline is not None and done % BATCH == 0 and done and time.monotonic() > deadline):
                complete = False
                break
            verdict = self.verdict(row)
            colors[verdict.color] += 1
            for finding in verdict.findings:
                if finding in findings or len(findings) < MOST_FINDINGS:
                    findings[finding] += 1
                else:
                    others += 1
        ordered = sorted(findings.items(), key=lambda item: (BY_SEVERITY.index(item[0].color), -item[1]))
        return Summary(
            colors={color: colors[color] for color in Color}, findings=dict(ordered), others=others, complete=complete
        )

    def _of_row(self, row: DeadLetter) -> Iterator[Finding]:
        if row.status not in self._statuses:
            text = _("It is %(status)s, and what is not dead or held is not requeued.")
            yield Finding(Color.RED, "status", text % {"status": row.get_status_display()})
        if row.body_ran and not self._even_if_ran:
            text = _("Its task had ended well, and would do its work once more.")
            yield Finding(Color.RED, "body_ran", text)
        if row.reason == Reason.REVOKED:
            yield Finding(Color.AMBER, "revoked", _("Somebody revoked it; a requeue takes that back."))
        if row.reason == Reason.PERMANENT:
            yield Finding(Color.AMBER, "permanent", _("Its task said that it can never succeed."))

    def _of_message(self, row: DeadLetter) -> Iterator[Finding]:
        envelope = row.envelope
        if envelope.content_type not in self._accepted:
            text = _("Workers refuse content of type %(type)s: it is not in accept_content.")
            yield Finding(Color.RED, "refused_content", text % {"type": repr(envelope.content_type)})
        if envelope.task_name:
            # Celery's second protocol needs an id; the first one has it in the body.
            wrong = wrong_header(envelope.headers) if envelope.headers.get("id") else "id"
            if wrong:
                text = _("Workers refuse it: its header %(name)s makes no sense, or is missing.")
                yield Finding(Color.RED, "invalid", text % {"name": repr(wrong)})
        if _is_past(envelope.headers.get("expires")):
            text = _("It has expired; a requeue takes its expiry away, so it would run.")
            yield Finding(Color.AMBER, "expired", text)
        name = envelope.task_name or row.task_name
        if name and self._signature(name) is None:
            yield from self._of_unknown(name)
        yield from self._of_body(envelope, name)

    def _of_unknown(self, name: str) -> Iterator[Finding]:
        if name not in self._not_here:
            return  # known, though nobody can tell how it is called
        if self._census is not None and self._census.knows(name):
            text = _("The task %(name)s is known to a worker, but not here: its arguments are not checked.")
            yield Finding(Color.AMBER, "not_here", text % {"name": name})
        else:
            text = _("No task is registered under the name %(name)s.")
            yield Finding(Color.RED, "unregistered", text % {"name": name})

    def _of_body(self, envelope: Envelope, name: str) -> Iterator[Finding]:
        if envelope.content_type not in SAFE_CONTENT:
            text = _("Its body can't be looked into, since it is of type %(type)s.")
            yield Finding(Color.AMBER, "opaque", text % {"type": repr(envelope.content_type)})
            return
        try:
            args, kwargs, embed = envelope.payload()
        except UndecodableError as exc:
            yield _first_protocol(envelope) or _undecodable(envelope, exc)
            return
        if not envelope.task_name or not is_call(args, kwargs, embed):
            yield Finding(Color.RED, "invalid", _("It is not shaped like the message of a task."))
            return
        known = self._signature(name)
        if known is not None and (why := misfit(known[0], args, kwargs)):
            if known[1]:
                text = _("The arguments don't fit the task: %(why)s.") % {"why": why}
                yield Finding(Color.RED, "arguments", text)
            else:
                text = _("The arguments may not fit the task, which says typing=False: %(why)s.") % {"why": why}
                yield Finding(Color.AMBER, "arguments", text)

    def _of_queue(self, row: DeadLetter) -> Iterator[Finding]:
        if self._census is None:
            return
        queue = self._queue or row.queue
        if not queue:
            yield Finding(Color.AMBER, "queue", _("Which queue it goes to, and who reads that, can't be told."))
            return
        readers = self._census.readers(queue)
        if readers is Readers.UNKNOWN:
            yield Finding(Color.AMBER, "queue", _("No worker answered, so nobody may be there to run it."))
        elif readers is Readers.NO_QUEUE and queue not in self._app.amqp.queues and not self._queue:
            text = _("The broker has no queue %(queue)s.")
            yield Finding(Color.RED, "no_queue", text % {"queue": repr(queue)})
        elif readers is not Readers.SOME:
            text = _("No worker reads the queue %(queue)s now.")
            yield Finding(Color.AMBER, "no_consumer", text % {"queue": repr(queue)})

    def _signature(self, name: str) -> tuple[inspect.Signature, bool] | None:
        """Return how the task is called, and whether Celery itself checks that."""
        if name not in self._signatures:
            if len(self._signatures) > 1_000:  # names that no task has may come from anywhere
                self._signatures.clear()
                self._not_here.clear()
            task = task_of(self._app, name)  # which takes long for one that is not here
            if task is None:
                self._not_here.add(name)
            signature = None if task is None else signature_of(task)
            self._signatures[name] = None if signature is None else (signature, bool(task.typing))
        return self._signatures[name]


def in_batches(rows: QuerySet[DeadLetter] | Iterable[DeadLetter]) -> Iterator[DeadLetter]:
    """Yield dead letters with what a preflight looks at; of a queryset, a bounded number are in memory."""
    if not isinstance(rows, QuerySet) or rows.query.is_sliced:
        yield from rows
        return
    last = None
    while True:
        rest = rows if last is None else rows.filter(pk__gt=last)
        batch = list(rest.order_by("pk").defer(None).only(*COLUMNS)[:BATCH])
        yield from batch
        if len(batch) < BATCH:
            return
        last = batch[-1].pk


def passing(preflight: Preflight, rows: Iterable[Any]) -> Iterator[tuple[list[Any], int]]:
    """Yield the primary keys among ``rows`` whose message may succeed, and how many may not, some at a time."""
    keys = iter(rows)
    while some := list(islice(keys, BATCH)):
        found = DeadLetter.objects.filter(pk__in=some).only(*COLUMNS)
        failing = {row.pk for row in found if preflight.will_fail(row)}
        yield [pk for pk in some if pk not in failing], len(failing)


def _accepted(app: Celery) -> set[str]:
    names: set[str] = set(TRUSTED_CONTENT)
    for name in app.conf.accept_content or ():
        try:
            names |= prepare_accept_content([name]) or set()
        except SerializerNotInstalled:
            continue  # a worker with this setting would not start
    return names


def _is_past(expires: Any) -> bool:
    try:
        moment = maybe_iso8601(expires)
    except (ValueError, TypeError, OverflowError):
        return False
    if not isinstance(moment, datetime):
        return False
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=utc_zone.utc)
    return moment < datetime.now(utc_zone.utc)


def _first_protocol(envelope: Envelope) -> Finding | None:
    if envelope.task_name:
        return None
    try:
        body = loads(envelope.body, envelope.content_type, envelope.content_encoding, accept=SAFE_CONTENT)
    except Exception:
        return None
    if not (isinstance(body, dict) and "task" in body):
        return None
    return Finding(Color.AMBER, "opaque", _("It is of Celery's first protocol, which is not looked into."))


def _undecodable(envelope: Envelope, exc: UndecodableError) -> Finding:
    if isinstance(exc.__cause__, SerializerNotInstalled):
        text = _("Its body can't be looked into: this process can't read %(type)s.")
        return Finding(Color.AMBER, "opaque", text % {"type": repr(envelope.content_type)})
    return Finding(Color.RED, "undecodable", _("Its body can't be decoded."))
