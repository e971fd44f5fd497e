"""Is all there that a web process needs? Asked by load balancers all the time, so it is remembered for some seconds.

Each part is asked in a thread of its own, which has a connection of its own and ends by itself: whoever asks waits no
longer than `PATIENCE`, also for what has fallen silent, and in an event loop nothing touches the database.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.migrations.executor import MigrationExecutor

from django_taskkit.dlq.project import project_app

logger = logging.getLogger("django_taskkit")

PATIENCE: Final = 3
"""Seconds for which each part is waited for."""

REMEMBERED: Final = 5.0
"""Seconds for which an answer holds."""

OK: Final = "ok"


class NotReadyError(Exception):
    """A part is not as it has to be; the message says how, without any secret."""


def database() -> None:
    """Ask the default database for a row."""
    connection = connections[DEFAULT_DB_ALIAS]
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1" + connection.features.bare_select_suffix)
        cursor.fetchone()


def migrations() -> None:
    """Find out whether this code's migrations are applied to the default database.

    Raises:
        NotReadyError: not all of them.
    """
    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    if count := len(executor.migration_plan(executor.loader.graph.leaf_nodes())):
        raise NotReadyError(f"{count} migration{'' if count == 1 else 's'} not applied")


def broker() -> None:
    """Connect to the broker as a producer does."""
    with project_app().connection_for_write(connect_timeout=PATIENCE) as connection:
        connection.ensure_connection(max_retries=0, timeout=PATIENCE)


class Part:
    """One thing that is needed.

    Args:
        ask: returns if it is there, raises if not.
        for_good: whether it stays there once it was: code doesn't change while it runs.
    """

    def __init__(
        self, ask: Callable[[], None], *, for_good: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._for_good = for_good
        self._clock = clock
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        self._answer = ""
        self._until = float("-inf")
        self._asking: threading.Thread | None = None

    def begin(self) -> None:
        """Begin to ask, unless the last answer still holds or somebody is asking."""
        with self._lock:
            if self._clock() < self._until or (self._asking is not None and self._asking.is_alive()):
                return
            self._asking = threading.Thread(target=self._run, name="django_taskkit.health", daemon=True)
            self._asking.start()

    def answer(self, seconds: float) -> str:
        """Return how it is, after so many seconds at most."""
        asking = self._asking
        if asking is not None:
            asking.join(max(0.0, seconds))
            if asking.is_alive():
                return "no answer"
        return self._answer

    def _run(self) -> None:
        try:
            self._ask()
            answer = OK
        except NotReadyError as exc:
            answer = str(exc)
        except Exception as exc:  # its text may have addresses and passwords
            answer = type(exc).__name__
            if self._answer != answer:
                logger.warning("not ready: %s", exc)
        finally:
            connections.close_all()
        self._answer = answer
        self._until = float("inf") if self._for_good and answer == OK else self._clock() + REMEMBERED


PARTS: Mapping[str, Part] = {
    "database": Part(database),
    "migrations": Part(migrations, for_good=True),
    "broker": Part(broker),
}


def look(without: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return how each part is, ``"ok"`` or what is wrong with it; parts in ``without`` are not asked."""
    asked = {name: part for name, part in PARTS.items() if name not in without}
    for part in asked.values():
        part.begin()
    deadline = time.monotonic() + PATIENCE
    return {name: part.answer(deadline - time.monotonic()) for name, part in asked.items()}
