"""Is a relay at work? Without one, nothing that waits in the outbox is ever sent."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import timedelta

from django.db import connections, router, transaction
from django.utils import timezone

from django_taskkit.dlq.durable import durable
from django_taskkit.outbox.event_loop import outside_event_loop
from django_taskkit.outbox.model import RelayHeartbeat

logger = logging.getLogger("django_taskkit")

SEEN_WITHIN = timedelta(minutes=2)
"""A relay that beat's schedule starts once a minute is alive as well."""

REMEMBERED = 30.0
"""Seconds for which a process believes what it found out last."""

REMEMBERED_FAILURE = 5.0
"""Seconds for which it is not asked again when it did not answer."""

QUERY_TIMEOUT = 10.0
"""Seconds to wait for the database."""

REMEDY = "run `manage.py taskkit relay`, or the task taskkit.relay from beat once a minute"


class RelayWatch:
    """Knows whether a relay has been seen lately, without asking the database each time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Ask the database again, and warn again."""
        self._known_until = -1.0
        self._alive = False
        self._warned: set[str] = set()

    def is_alive(self) -> bool:
        """Say whether a relay was alive lately; False also if the database can't say. Never breaks a transaction."""
        now = self._clock()
        if now >= self._known_until:
            try:
                self._alive = outside_event_loop(_seen_lately)
                remembered = REMEMBERED
            except Exception:  # no table yet, no database: then no relay either
                self._alive, remembered = False, REMEMBERED_FAILURE
            self._known_until = now + remembered
        return self._alive

    def warn_once(self, about: str, message: str) -> None:
        """Log ``message`` and the remedy, once per process."""
        if about not in self._warned:
            self._warned.add(about)
            logger.warning("%s, and no relay has been seen for two minutes: %s", message, REMEDY)


def _seen_lately() -> bool:
    using = router.db_for_read(RelayHeartbeat)
    # In a transaction of the caller's a savepoint keeps it whole; elsewhere a silent database is not waited for long.
    waiting = nullcontext() if connections[using].in_atomic_block else durable(using, QUERY_TIMEOUT)
    with waiting, transaction.atomic(using=using):
        return RelayHeartbeat.objects.using(using).filter(seen_at__gte=timezone.now() - SEEN_WITHIN).exists()


watch = RelayWatch()
