"""Ask several things of broker, database and others, side by side, and wait for all of them until one deadline.

To a database that accepts connections and says nothing each question takes as long as a connection may. So one that
can't be reached is asked nothing else, and who still owes an answer to a scrape before is not asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from django_taskkit.dlq.durable import NoConnectionError


@dataclass(frozen=True)
class Question:
    """One part of the page."""

    name: str
    whom: str
    """Questions to one and the same are asked one after the other."""
    ask: Callable[[], Iterable[Any]]


@dataclass
class Answer:
    """What has been found so far."""

    found: list[Any] = field(default_factory=list)
    error: Exception | None = None
    is_whole: bool = False


class SideBySide:
    """Asks, each time in threads of its own.

    Args:
        at_the_end: is called in each of these threads, whatever its questions have raised.
    """

    def __init__(self, at_the_end: Callable[[], None]) -> None:
        self._at_the_end = at_the_end
        self._threads: dict[str, threading.Thread] = {}

    def ask(self, questions: Iterable[Question], seconds: float, here: Collection[str] = ()) -> dict[str, Answer]:
        """Return the answers by name, after ``seconds`` those that are there; never raises.

        Args:
            here: who is asked in this thread, which nothing bounds.
        """
        until = time.monotonic() + seconds
        by_whom: dict[str, list[tuple[Question, Answer]]] = {}
        answers: dict[str, Answer] = {}
        for question in questions:
            answers[question.name] = answer = Answer()
            by_whom.setdefault(question.whom, []).append((question, answer))
        asked = [whom for whom in by_whom if whom not in here and self._start(whom, by_whom[whom])]
        for whom in here:
            _ask(by_whom.get(whom, []))
        for whom in asked:
            self._threads[whom].join(max(0.0, until - time.monotonic()))
        late = TimeoutError(f"no answer in {seconds:g} s")
        # A thread that is given up may still write into its own ones.
        return {
            name: Answer(list(answer.found), None if answer.is_whole else answer.error or late, answer.is_whole)
            for name, answer in answers.items()
        }

    def _start(self, whom: str, asked: list[tuple[Question, Answer]]) -> bool:
        before = self._threads.get(whom)
        if before is not None and before.is_alive():
            for _question, answer in asked:
                answer.error = TimeoutError(f"the {whom} still owes an answer to a scrape before")
            return False

        def run() -> None:
            try:
                _ask(asked)
            finally:
                self._at_the_end()

        thread = threading.Thread(target=run, name=f"django_taskkit.metrics.{whom}", daemon=True)
        self._threads[whom] = thread
        thread.start()
        return True


def _ask(asked: list[tuple[Question, Answer]]) -> None:
    down: Exception | None = None
    for question, answer in asked:
        if down is not None:
            answer.error = down
            continue
        try:
            for item in question.ask():
                answer.found.append(item)
        except Exception as exc:
            answer.error = exc
            down = _no_connection(exc)
        else:
            answer.is_whole = True


def _no_connection(exc: BaseException | None) -> NoConnectionError | None:
    """Return it, or what is behind it, if no connection was to be had."""
    while exc is not None and not isinstance(exc, NoConnectionError):
        exc = exc.__cause__
    return exc
