"""How far a task is, as it says itself.

It is kept in a cache, on a card under the id of the task, so it stays over retries. Nobody waits for it or subscribes
to it: who wants to know looks.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, Final

from celery import current_task

from django_taskkit.envelope import RESULT_HEADER
from django_taskkit.stores import PREFIX
from django_taskkit.stores.place import cache_at

logger = logging.getLogger("django_taskkit")

AT_ONCE: Final = 5
"""How many times in a row a task may say something and have it written at once."""

EVERY: Final = 0.5
"""Seconds between two writes after that; what is said meanwhile is left out, but for the end. Numbers and messages are
counted apart."""

KEPT_FOR: Final = 86_400
"""Seconds that progress is kept after the task has said something."""

MESSAGE_MAX_LENGTH: Final = 200
"""Characters of a message that are kept."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a task has said about how far it is."""

    done: float = 0
    total: float | None = None
    """In the same unit as ``done``; None: the task doesn't know."""
    message: str = ""

    @property
    def is_determinate(self) -> bool:
        """Whether there is a total to compare with."""
        return self.total is not None and self.total > 0

    @property
    def fraction(self) -> float | None:
        """From 0 to 1; None if it is not determinate."""
        if self.total is None or self.total <= 0:
            return None
        return min(1.0, max(0.0, self.done / self.total))

    @property
    def percent(self) -> int | None:
        """From 0 to 100, and 100 only at the end; None if it is not determinate."""
        fraction = self.fraction
        return None if fraction is None else int(fraction * 100)


class Speaker:
    """Writes what one run says about its progress, and not all of it: a loop over rows may say something each time.

    Args:
        write: takes done, total and message.
        clock: returns seconds.
    """

    def __init__(
        self, write: Callable[[float, float | None, str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        # Of numbers, and of a new message or total: a stage that begins is said although a loop has just ended.
        self._credits = [float(AT_ONCE)] * 2
        self._credited = clock()
        self._last: tuple[float, float | None, str] | None = None

    def say(self, done: float, total: float | None, message: str) -> None:
        said = (done, total, message)
        if said == self._last:
            return
        now = self._clock()
        earned = (now - self._credited) / EVERY
        self._credits = [min(AT_ONCE, credit + earned) for credit in self._credits]
        self._credited = now
        of = int(self._last is None or (total, message) != self._last[1:])
        if self._credits[of] < 1 and not self._is_end(done, total):
            return
        self._credits[of] = max(0.0, self._credits[of] - 1)
        self._last = said
        self._write(*said)

    def _is_end(self, done: float, total: float | None) -> bool:
        """Say whether this is the end, and is said for the first time."""
        return total is not None and done >= total and (self._last is None or self._last[0] < total)


def set_progress(done: float, total: float | None = None, message: str = "") -> None:
    """Say how far the running task is. Outside of a task it does nothing, so that its body can be called as it is.

    It may be called as often as it suits: after the first five times, twice a second is written. What can't be
    written is left out; the task goes on.

    Args:
        done: how much is done, in any unit, 0 or more.
        total: how much there is to do, in the same unit; None: nobody knows.
        message: a phrase for whoever waits; 200 characters of it are kept. It is shown to them, so no secrets.

    Raises:
        TypeError, ValueError: ``done`` or ``total`` is no number, or below 0.
    """
    for name, value in (("done", done), ("total", total)):
        if value is None and name == "total":
            continue
        if not isinstance(value, Real) or isinstance(value, bool):
            raise TypeError(f"set_progress: {name} is {value!r:.80}; give a number")
        if not 0 <= value < float("inf"):
            raise ValueError(f"set_progress: {name} is {value!r}; give a number, 0 or more")
    request: Any = current_task.request if current_task else None
    if request is None or request.id is None:
        return
    speaker: Speaker | None = getattr(request, "taskkit_speaker", None)
    if speaker is None:
        speaker = request.taskkit_speaker = _speaker_of(request)
    # Numbers of other libraries would not get through every cache.
    speaker.say(_plain(done), None if total is None else _plain(total), str(message)[:MESSAGE_MAX_LENGTH])


def _plain(number: float) -> float:
    return int(number) if isinstance(number, Integral) else float(number)


def _speaker_of(request: Any) -> Speaker:
    header = getattr(request, RESULT_HEADER, None) or (request.headers or {}).get(RESULT_HEADER)
    order = header if isinstance(header, Mapping) else {}
    alias, key, tags = order.get("cache", "default"), order.get("key", ""), order.get("tags") or ()
    task_id = str(request.id)

    def write(done: float, total: float | None, message: str) -> None:
        try:
            write_card(task_id, alias, key=key, tags=tags, progress=Progress(done=done, total=total, message=message))
        except Exception as exc:
            logger.warning("task %s: its progress can't be written: %r", task_id, exc)

    return Speaker(write)


def progress_of(task_id: str, *, cache: str = "default") -> Progress | None:
    """Return what a task has said about its progress; None if it has said nothing, or the cache is out of reach.

    Args:
        cache: alias of the cache: that of the ``ResultCache`` that has sent the task, else ``"default"``.
    """
    try:
        card = read_card(task_id, cache)
    except Exception as exc:
        logger.warning("the progress of task %s can't be read: %r", task_id, exc)
        return None
    said = (card or {}).get("progress")
    return Progress(done=said[0], total=said[1], message=said[2]) if said else None


def card_key(task_id: str) -> str:
    return f"{PREFIX}:task:{task_id}"


def write_card(
    task_id: str,
    cache: str,
    *,
    key: str,
    tags: Iterable[str] = (),
    progress: Progress | None = None,
    kept_for: float = 0,
) -> None:
    """Write under the id of a task where its value will be, and how far it is.

    Args:
        kept_for: seconds for which it is to be kept, if that is longer than usual.
    """
    card: dict[str, Any] = {"key": key, "tags": list(tags)}
    if progress is not None:
        card["progress"] = [progress.done, progress.total, progress.message]
    cache_at(cache).set(card_key(task_id), card, max(KEPT_FOR, kept_for))


def read_card(task_id: str, cache: str) -> Mapping[str, Any] | None:
    """Return what is written under the id of a task; None if there is nothing."""
    card = cache_at(cache).get(card_key(task_id))
    return card if isinstance(card, dict) else None
