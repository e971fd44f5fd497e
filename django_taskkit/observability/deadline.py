"""Ask something that may never answer, and wait no longer than one cares to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, ask: Callable[[], T], name: str) -> T:
    """Return what ``ask`` returns, or raise what it raises; it runs in a thread of its own.

    Limits of a socket bound one answer, not all of them, and nothing bounds the look-up of a host's name. The thread
    of a question that is given up goes on until its own limits end it; it is a daemon and keeps no process alive.

    Raises:
        TimeoutError: no answer after ``seconds``.
    """
    answers: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as exc:  # it is raised where it is waited for
            errors.append(exc)

    thread = threading.Thread(target=run, name=f"django_taskkit.{name}", daemon=True)
    thread.start()
    thread.join(max(0.0, seconds))
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer in {seconds:g} s")
    return answers[0]  # type: ignore[no-any-return]
