"""Assertions that say what did happen when they fail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django_taskkit.dlq.models import DeadLetter
    from django_taskkit.testing.events import Ran, Retried, Sent, Waiting

MOST_LINES = 20
"""How much of what happened a message tells."""


class Assertions:
    """What a test may claim about its block. A ``task`` is a task or its name; each returns what it speaks of."""

    if TYPE_CHECKING:

        @property
        def sent(self) -> list[Sent]: ...

        @property
        def retries(self) -> list[Retried]: ...

        @property
        def ran(self) -> list[Ran]: ...

        @property
        def waiting(self) -> list[Waiting]: ...

        @property
        def dead_letters(self) -> list[DeadLetter]: ...

        def _name(self, task: Any) -> str: ...

        def _spooled(self) -> int: ...

    def assert_sent(
        self,
        task: Any,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        times: int | None = None,
        queue: str | None = None,
        delay: float | None = None,
    ) -> list[Sent]:
        """Claim that ``task`` was sent: with these arguments, so many times, to this queue, with this delay.

        What is None is not looked at; without ``times`` once is enough. The name of a task of another project will do.
        """
        __tracebackhide__ = True
        name = task if isinstance(task, str) else self._name(task)
        found = [
            sent
            for sent in self.sent
            if sent.task == name
            and (args is None or sent.args == tuple(args))
            and (kwargs is None or dict(sent.kwargs) == dict(kwargs))
            and (queue is None or sent.queue == queue)
            and (delay is None or abs(sent.delay - delay) < 0.001)
        ]
        wanted = {"args": args, "kwargs": kwargs, "queue": queue, "delay": delay}
        details = ", ".join(f"{key}={value!r}" for key, value in wanted.items() if value is not None)
        claim = f"{name} sent{f' with {details}' if details else ''}"
        lines = [
            f"{sent.task} args={sent.args!r} kwargs={dict(sent.kwargs)!r} queue={sent.queue!r} delay={sent.delay:g}"
            for sent in self.sent
        ]
        _check_times(claim, found, times, "Sent were", lines)
        return found

    def assert_not_sent(self, task: Any) -> None:
        """Claim that ``task`` was not sent."""
        __tracebackhide__ = True
        self.assert_sent(task, times=0)

    def assert_ran(self, task: Any, *, times: int | None = None, state: str | None = None) -> list[Ran]:
        """Claim that ``task`` ran, and how it ended: ``"succeeded"``, ``"failed"``, ``"retried"``, …"""
        __tracebackhide__ = True
        name = self._name(task)
        found = [ran for ran in self.ran if ran.task == name and state in (None, ran.state)]
        _check_times(f"{name} ran{f' and {state}' if state else ''}", found, times, "Runs were", self._runs())
        return found

    def assert_retried(
        self,
        task: Any,
        *,
        times: int | None = None,
        delay_between: tuple[float, float] | None = None,
        exception: type[BaseException] | None = None,
    ) -> list[Retried]:
        """Claim that runs of ``task`` were to be repeated: so often, each after a delay within these two seconds.

        What a Snooze, a budget, a breaker or an idempotency key puts off uses up no retry, and is not counted.
        """
        __tracebackhide__ = True
        name = self._name(task)
        found = [retry for retry in self.retries if retry.task == name and retry.counted]
        lines = [
            f"{retry.task}[{retry.id}] after run {retry.attempt}, in {retry.delay:g} s: {retry.exception!r}"
            for retry in self.retries
        ]
        _check_times(f"{name} retried", found, times, "Retries were", lines)
        for retry in found:
            if delay_between is not None and not delay_between[0] <= retry.delay <= delay_between[1]:
                low, high = delay_between
                raise AssertionError(
                    f"{name} was retried {retry.delay:g} s after run {retry.attempt}, "
                    f"which is not between {low:g} and {high:g} s{_listed('Retries were', lines)}"
                )
            if exception is not None and not isinstance(retry.exception, exception):
                raise AssertionError(
                    f"{name} was retried because of {retry.exception!r} in run {retry.attempt}, "
                    f"not {exception.__name__}{_listed('Retries were', lines)}"
                )
        return found

    def assert_dead(self, task: Any, *, reason: str | None = None, exception: str | None = None) -> DeadLetter:
        """Claim that exactly one message of ``task`` died, for this reason, by an exception whose name ends so.

        Args:
            task: a task, or its name.
            reason: as in :attr:`DeadLetter.reason`: ``"retries_exhausted"``, ``"permanent"``, …
            exception: the name of its class, with or without its module.
        """
        __tracebackhide__ = True
        name = self._name(task)
        letters = self.dead_letters
        found = [letter for letter in letters if letter.task_name == name]
        lines = self._deaths(letters)
        _check_times(f"{name} dead", found, 1, "Dead letters are", [*lines, *self._not_seen()])
        (letter,) = found
        if reason is not None and letter.reason != reason:
            raise AssertionError(f"{name} is dead by reason {letter.reason!r}, not {reason!r}{_listed('', lines)}")
        if exception is not None and not f".{letter.exception_class}".endswith(f".{exception}"):
            raise AssertionError(
                f"{name} is dead by {letter.exception_class or 'no exception'}, not {exception}{_listed('', lines)}"
            )
        return letter

    def assert_no_dead_letters(self) -> None:
        """Claim that nothing died."""
        __tracebackhide__ = True
        letters = self.dead_letters
        if letters:
            raise AssertionError(f"messages died{_listed('Dead letters are', self._deaths(letters))}")
        if unseen := self._not_seen():
            raise AssertionError(f"messages died{_listed('', unseen)}")

    def assert_nothing_left(self) -> None:
        """Claim that no message waits any more, neither on a queue nor in the outbox."""
        __tracebackhide__ = True
        if waiting := self.waiting:
            raise AssertionError(f"messages are left{_listed('', self._left(waiting))}")

    def _not_seen(self) -> list[str]:
        count = self._spooled()
        why = "are spooled, since the database was out of reach: call relay(), or give the test a database"
        return [f"{count} {why} (pytest.mark.django_db)"] if count else []

    def _told(self) -> str:
        return _listed("Waiting are", self._left(self.waiting)) + _listed("Runs were", self._runs())

    def _runs(self) -> list[str]:
        return [
            f"{ran.task}[{ran.id}] run {ran.attempt} {ran.state}{f': {ran.exception!r}' if ran.exception else ''}"
            for ran in self.ran
        ]

    def _deaths(self, letters: list[DeadLetter]) -> list[str]:
        return [
            f"{letter.task_name}[{letter.task_id}] {letter.reason} after {letter.attempts} runs: "
            f"{letter.exception_class}: {letter.exception_message}"
            for letter in letters
        ]

    def _left(self, waiting: list[Waiting]) -> list[str]:
        return [
            f"{left.task}[{left.id}] in {'the outbox' if left.where == 'outbox' else repr(left.queue)}, "
            + (f"due at {left.due:%Y-%m-%d %H:%M:%S}" if left.due else "due now: call run()")
            + ("" if left.is_known else ", for which this project has no task")
            for left in waiting
        ]


def _check_times(claim: str, found: Sequence[Any], times: int | None, title: str, lines: list[str]) -> None:
    __tracebackhide__ = True
    if len(found) == times or (times is None and found):
        return
    wanted = "at least once" if times is None else _so_often(times)
    happened = _so_often(len(found))
    raise AssertionError(f"{claim}: expected {wanted}, but it was {happened}{_listed(title, lines)}")


def _so_often(times: int) -> str:
    return {0: "never", 1: "once"}.get(times, f"{times} times")


def _listed(title: str, lines: list[str]) -> str:
    head = f". {title}:" if title else ":"
    if not lines:
        return f"{head} none" if title else ""
    more = [f"and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
    return "\n  ".join([head, *lines[:MOST_LINES], *more])
