"""The way of one run through the gates of its task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, NamedTuple

from django_taskkit.base_tasks.gates import Answer, Gate, Outcome, Run, Wait

logger = logging.getLogger("django_taskkit")


class Delayed(NamedTuple):
    """How long a message is made to wait, and why."""

    seconds: float
    why: str


class Passage:
    """One run on its way through the gates of its task, in and out, once each."""

    def __init__(self, gates: tuple[Gate, ...], run: Run) -> None:
        self._gates = gates
        self._run = run
        self._entered: list[Gate] = []

    def enter(self) -> Answer | None:
        """Ask each gate in turn; the first that answers, or has the message wait, is the last that is asked.

        Raises:
            Wait: not now.
        """
        for gate in self._gates:
            answer = gate.enter(self._run)
            if answer is not None:
                self.leave(Outcome.ENDED)
                return answer
            self._entered.append(gate)
        return None

    def leave(
        self,
        outcome: Outcome,
        *,
        result: Any = None,
        delay: float | None = None,
        may_wait: bool = True,
        waiting: Callable[[Wait], float] = lambda wait: max(wait.base, wait.at_least),
    ) -> Delayed | None:
        """Tell each gate that was passed what became of the run, the last one first; only the first call counts.

        Args:
            delay: seconds until the next run, if there is one; gates further out are told of the wait of those within
                if that is longer, since it is what the message really waits.
            may_wait: whether the message may wait if a gate says so; one that is exhausted is none any more then.
            waiting: says how many seconds a wait means.

        Returns:
            The longest wait that a gate asks for, None if none does.
        """
        longest: Delayed | None = None
        while self._entered:
            gate = self._entered.pop()
            try:
                wait = gate.leave(self._run, outcome, result=result, delay=delay)
                seconds = None if wait is None else waiting(wait)
            except Exception:  # the run has ended, and stays what it is
                logger.exception("task %s: %r could not note that its run %s", self._run.task, gate, outcome.value)
                continue
            if wait is not None and seconds is not None and may_wait:
                if longest is None or seconds > longest.seconds:
                    longest = Delayed(seconds, str(wait))
                delay = max(longest.seconds, delay or 0.0)
                if outcome is Outcome.EXHAUSTED:
                    outcome = Outcome.RETRIED
        return longest


def gates_of(task: Any) -> tuple[Gate, ...]:
    """Return the gates of ``task``, outermost first; none for most tasks, at the cost of three attributes.

    Raises:
        ConfigurationError: an option of one of them makes no sense.
    """
    if task.idempotency_key is None and task.breaker is None and task.retry_budget is None:
        return ()
    from django_taskkit.base_tasks.gates import breaker, budget, idempotency

    found = (idempotency.gate_of(task), breaker.gate_of(task), budget.gate_of(task))
    return tuple(gate for gate in found if gate is not None)
