"""Who reads a queue, and who knows a task? Workers and broker are asked once and briefly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Any

from celery import Celery

from django_taskkit.dlq.publisher import timeouts

ANSWER_TIMEOUT = 1.0
"""Seconds that workers are given to answer. All of it passes, since nobody knows how many there are."""

MOST_QUEUES = 100
"""Queues that RabbitMQ is asked about; a name may come from anywhere, and each costs a round trip."""


class Readers(Enum):
    """What is known of the workers that read a queue."""

    SOME = "some"
    NONE = "none"
    """Who answered does not read it."""
    NO_QUEUE = "no queue"
    """The broker has no queue of the name."""
    UNKNOWN = "unknown"
    """Nobody answered."""


class Census:
    """What workers and broker said; asked when first needed, and never again.

    RabbitMQ counts the consumers of a queue itself. On other brokers the workers are asked, where the transport can do
    that; one that is too busy to answer in time is missed.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._readers: dict[str, Readers] = {}
        self._answers: dict[str, dict[str, set[str]] | None] = {}
        self._is_away = False

    def readers(self, queue: str) -> Readers:
        """Return who reads ``queue``; never raises."""
        if queue not in self._readers:
            if len(self._readers) >= MOST_QUEUES or self._is_away:
                return Readers.UNKNOWN
            self._readers[queue] = self._ask_about(queue)
        return self._readers[queue]

    def knows(self, task_name: str) -> bool | None:
        """Say whether a worker knows the task; None if no worker answered."""
        answers = self._answered("registered")
        return None if answers is None else any(task_name in names for names in answers.values())

    def _ask_about(self, queue: str) -> Readers:
        try:
            if self._app.connection_for_write().transport.driver_type == "amqp":
                return self._declared(queue)
        except Exception:  # a broker that is down is what "unknown" is for
            self._is_away = True  # and is not waited for once more with the next queue
            return Readers.UNKNOWN
        answers = self._answered("active_queues")
        if answers is None:
            return Readers.UNKNOWN
        return Readers.SOME if any(queue in names for names in answers.values()) else Readers.NONE

    def _declared(self, queue: str) -> Readers:
        with self._connected() as connection:
            try:
                found = connection.channel().queue_declare(queue, passive=True)
            except connection.channel_errors as exc:
                return Readers.NO_QUEUE if getattr(exc, "code", None) == 404 else Readers.UNKNOWN
            return Readers.SOME if found.consumer_count else Readers.NONE

    def _answered(self, question: str) -> dict[str, set[str]] | None:
        if question not in self._answers:
            try:
                with self._connected() as connection:
                    inspect = self._app.control.inspect(timeout=ANSWER_TIMEOUT, connection=connection)
                    ask: Callable[[], Any] = getattr(inspect, question)
                    replies = ask() or {}
                    self._answers[question] = {name: set(_names(reply)) for name, reply in replies.items()} or None
            except Exception:  # no broker, or one over which nobody can be asked
                self._answers[question] = None
        return self._answers[question]

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        driver = self._app.connection_for_write().transport.driver_type
        connection: Any = self._app.connection_for_write(transport_options=timeouts(driver))
        try:
            connection.ensure_connection(max_retries=1, interval_start=0.1)
            yield connection
        finally:
            connection.release()


def _names(reply: Any) -> Iterator[str]:
    for item in reply if isinstance(reply, list) else ():
        # A queue with all that is to be said of it, or a task with its rate limit behind it.
        yield str(item.get("name")) if isinstance(item, dict) else str(item).partition(" [")[0]
