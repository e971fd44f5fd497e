"""Write dead letters that come from elsewhere into the table, in batches, each once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db import DatabaseError, connections, router, transaction
from django.utils import timezone

from django_taskkit.dlq.models import DeadLetter, DeadLetterEvent
from django_taskkit.dlq.text import bounded, storable
from django_taskkit.dlq.transfer.portable import Letter

BATCH = 500
"""Letters that are written in one transaction."""

BATCH_BYTES = 4_000_000
"""Bytes of letters that are written in one transaction, unless a single one is larger."""

Refuse = Callable[[str, str], None]


class Importer:
    """Takes letters with :meth:`add`, and writes what is left over when its block ends.

    A letter whose task id is in the table is left alone: running an import again changes nothing. Generation and
    number of requeues are kept, so that messages that are under way still find their row. No signal is sent: nobody
    died just now.

    Args:
        by: who does it; kept in the history.
        note: where the letters come from; kept in the history.
        refuse: called with the place of a letter that the database refuses, and why.
        dry_run: write nothing, and only count. A letter that comes twice counts twice then, unless close together.

    Raises:
        DatabaseError: from any method, when the database can't be used at all. What was counted before is written.
    """

    def __init__(self, *, by: str, note: str, refuse: Refuse, dry_run: bool = False) -> None:
        self.imported = self.known = self.refused = 0
        self._by, self._note, self._dry_run = bounded(by), storable(note), dry_run
        self._refuse = refuse
        self._using = router.db_for_write(DeadLetter)
        self._batch: dict[str, tuple[str, Letter]] = {}
        self._weight = 0

    def __enter__(self) -> Importer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None or not issubclass(kind, DatabaseError):
            self._flush()

    def add(self, place: str, letter: Letter) -> None:
        """Take ``letter``, which was found at ``place``: ``"line 7"``."""
        if letter.task_id in self._batch:
            self.known += 1
            return
        self._batch[letter.task_id] = (place, letter)
        self._weight += letter.weight
        if len(self._batch) >= BATCH or self._weight >= BATCH_BYTES:
            self._flush()

    def refuse(self, place: str, why: str) -> None:
        """Count what is no letter, and say so."""
        self.refused += 1
        self._refuse(place, why)

    def _flush(self) -> None:
        batch, self._batch, self._weight = self._batch, {}, 0
        known = self._keys(list(batch))
        new = {task_id: found for task_id, found in batch.items() if task_id not in known}
        if not self._dry_run and new:
            try:
                self._insert([letter for _place, letter in new.values()])
            except DatabaseError:
                self._one_by_one(new)
                self.known += len(known)
                return
        self.known += len(known)
        self.imported += len(new)

    def _one_by_one(self, letters: dict[str, tuple[str, Letter]]) -> None:
        """Write each by itself: one of them is refused, or somebody else has just written it."""
        for task_id, (place, letter) in letters.items():
            self._forget_broken_connection()
            if self._keys([task_id]):
                self.known += 1
                continue
            try:
                self._insert([letter])
            except DatabaseError as exc:
                self.refuse(place, f"the database refuses it: {exc}")
            else:
                self.imported += 1
        self._forget_broken_connection()

    def _forget_broken_connection(self) -> None:
        """What broke it, a packet too large say, must not refuse the next one as well."""
        connection = connections[self._using]
        if not connection.in_atomic_block:
            connection.close_if_unusable_or_obsolete()

    def _keys(self, task_ids: list[str]) -> dict[str, int]:
        rows = DeadLetter.objects.using(self._using).filter(task_id__in=task_ids)
        return dict(rows.values_list("task_id", "pk"))

    def _insert(self, letters: list[Letter]) -> None:
        now = timezone.now()
        with transaction.atomic(using=self._using):
            DeadLetter.objects.using(self._using).bulk_create(DeadLetter(**letter.columns) for letter in letters)
            keys = self._keys([letter.task_id for letter in letters])  # not every database tells them
            events = []
            for letter in letters:
                imported: dict[str, Any] = {
                    "kind": DeadLetterEvent.Kind.IMPORTED,
                    "at": now,
                    "by": self._by,
                    "note": self._note,
                    "generation": letter.columns.get("requeue_count", 0),
                }
                key = keys[letter.task_id]
                events += [DeadLetterEvent(dead_letter_id=key, **event) for event in (*letter.events, imported)]
            DeadLetterEvent.objects.using(self._using).bulk_create(events, batch_size=BATCH)
