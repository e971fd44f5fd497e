"""One attempt at a task: through the gates, into the body, and what follows if that fails."""

from __future__ import annotations

import logging
import random
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from celery.exceptions import Ignore, Reject, Retry
from celery.utils.time import maybe_iso8601

from django_taskkit.backoff import Uniform
from django_taskkit.base_tasks.call_errors import is_call_error
from django_taskkit.base_tasks.decision import Again, Dead, Failure, Said, decide, verdict_of
from django_taskkit.base_tasks.gates import Outcome, Run, Wait
from django_taskkit.base_tasks.gates.passage import Delayed, Passage, gates_of
from django_taskkit.base_tasks.next_message import counts_of
from django_taskkit.base_tasks.policy import RetryPolicy
from django_taskkit.base_tasks.rules import RetryRules, rules_of
from django_taskkit.base_tasks.verdicts import Snooze, Verdict
from django_taskkit.envelope import (
    FIRST_FAILED_HEADER,
    PREVIOUS_DELAY_HEADER,
    RETRIES_BY_HEADER,
    WAITS_HEADER,
)
from django_taskkit.exceptions import ConfigurationError

if TYPE_CHECKING:
    from django_taskkit.base_tasks.retry import BaseTaskWithRetry

logger = logging.getLogger("django_taskkit")

PATIENCE = 86_400.0
"""Seconds from the first failure in which failures use up no retry while a budget or a breaker says that what the task
needs is down. After that it dies as any other: somebody should know."""


def attempt(task: BaseTaskWithRetry, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body of ``task``, and retry it as its options say. Returns what the body returns."""
    request: Any = task.request
    passage = None if request.called_directly or request.is_eager else _passage(task, request, args, kwargs)
    try:
        if passage is not None and (answer := passage.enter()) is not None:
            return answer.result
        result = task._body(*args, **kwargs)
    except Wait as wait:
        raise _put_off(task, request, wait) from None
    except Retry as retry:
        if passage is not None:  # unless task.retry() has said so
            passage.leave(Outcome.RETRIED, delay=retry.when if isinstance(retry.when, (int, float)) else None)
        raise
    except (Ignore, Reject):
        if passage is not None:
            passage.leave(Outcome.ENDED)
        raise
    except BaseException as exc:
        if request.called_directly:
            raise
        follows = _retry_of(task, request, exc, args, kwargs)
        if follows is exc:
            raise
        raise follows from exc
    if passage is not None:
        passage.leave(Outcome.SUCCEEDED, result=result)
    return result


def failure_of(task: BaseTaskWithRetry, exc: BaseException | None, *, expires: Any = None) -> Failure:
    """Return the facts of the run that goes on in this thread, and of its failure by ``exc``.

    Args:
        expires: of the retry, in any form that ``apply_async`` takes; None: as the message that is running.
    """
    request: Any = task.request
    now = time.time()
    return Failure(
        exc=exc,
        now=now,
        retries=request.retries,
        retries_by=counts_of(_header(request, RETRIES_BY_HEADER)),
        first_failed_at=_number(_header(request, FIRST_FAILED_HEADER)),
        expires_at=_moment(request.expires if expires is None else expires, now, task.app),
        previous_delay=_number(_header(request, PREVIOUS_DELAY_HEADER)),
    )


def give_up(task: BaseTaskWithRetry, dead: Dead, exc: BaseException | None) -> None:
    """Note why this run is the last one, for whoever records the death, and let the task and its gates know."""
    request: Any = task.request
    request.taskkit_reason = dead.reason
    if isinstance(exc, Snooze):  # it didn't fail; there is no time left to wait
        leave(request, Outcome.ENDED)
        return
    leave(request, Outcome.EXHAUSTED if dead.is_exhausted else Outcome.DIED, may_wait=False)
    if dead.is_exhausted and exc is not None:
        try:
            task.on_retries_exhausted(exc, request.retries + 1)
        except Exception:
            logger.exception("task %s[%s]: its on_retries_exhausted() failed", task.name, request.id)


def wait_instead(task: BaseTaskWithRetry, dead: Dead) -> Delayed | None:
    """Return how long a message waits that would be dead now, while what its task needs is known to be down."""
    request: Any = task.request
    if dead.reason != "retries_exhausted" or not is_patient(request):
        return None
    return leave(request, Outcome.EXHAUSTED, uniform=task.uniform)


def is_patient(request: Any) -> bool:
    """Say whether it is early enough for a failure to use up no retry, if what the task needs is down."""
    first = _number(_header(request, FIRST_FAILED_HEADER))
    return first is None or time.time() - first <= PATIENCE


def leave(
    request: Any,
    outcome: Outcome,
    *,
    delay: float | None = None,
    may_wait: bool = True,
    uniform: Uniform = random.uniform,
) -> Delayed | None:
    """Tell the gates that this run has passed what became of it; return how long they have the message wait."""
    passage: Passage | None = getattr(request, "taskkit_passage", None)
    if passage is None:
        return None
    return passage.leave(
        outcome, delay=delay, may_wait=may_wait, waiting=lambda wait: waiting_time(request, wait, uniform)
    )


def waiting_time(request: Any, wait: Wait, uniform: Uniform) -> int:
    """Return whole seconds that a message waits which a gate has put off, longer with each time in a row."""
    waits = getattr(request, WAITS_HEADER, None)
    policy = RetryPolicy(backoff=min(wait.base, wait.cap), cap=max(1.0, wait.cap), max_retries=None)
    delay = policy.delay(waits if isinstance(waits, int) and waits > 0 else 0, uniform=uniform)
    # All that are told to come back at a certain time must not come back at the same.
    return max(delay, int(wait.at_least + 0.999 + uniform(0.0, min(delay, 60))) if wait.at_least else 0)


def _passage(task: Any, request: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Passage | None:
    gates = gates_of(task)
    if not gates:
        return None
    request.taskkit_passage = Passage(gates, Run(task=task, request=request, args=args, kwargs=kwargs))
    return cast("Passage", request.taskkit_passage)


def _put_off(task: BaseTaskWithRetry, request: Any, wait: Wait) -> BaseException:
    again = Again(delay=waiting_time(request, wait, task.uniform), counted=False, failed=False)
    leave(request, Outcome.SNOOZED, delay=again.delay)
    ending: BaseException = task._run_again(again, exc=wait, why=str(wait))
    return ending


def _retry_of(
    task: BaseTaskWithRetry, request: Any, exc: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> BaseException:
    """Return what the failed run ends in: Celery's Retry, or ``exc`` itself."""
    # Its own retry() has given up, unless a verdict says otherwise; or it has sent the message, with throw=False, and a
    # second one would double with each run.
    given_up = getattr(request, "taskkit_reason", None) and not isinstance(exc, Verdict)
    if given_up or getattr(request, "taskkit_sent_again", False):
        leave(request, Outcome.DIED)
        return exc
    try:
        rules = rules_of(task)
        if is_call_error(task._body, exc, args, kwargs):
            decision: Again | Dead = Dead("exception")
        else:
            failure = failure_of(task, exc, expires=rules.options.get("expires"))
            decision = decide(rules, failure, said=_said(task, rules, exc), uniform=task.uniform)
    except Exception as problem:
        # A worker refuses to start with such options; they were changed since. The task's own error counts.
        log = logger.error if isinstance(problem, ConfigurationError) else logger.exception
        log("task %s[%s] failed and can't be retried: %s", task.name, request.id, problem)
        leave(request, Outcome.DIED)
        return exc
    why = ""
    if isinstance(decision, Dead):
        delayed = wait_instead(task, decision)
        if delayed is None:
            give_up(task, decision, exc)
            return decision.verdict or exc
        decision, why = Again(delay=delayed.seconds, counted=False), delayed.why
    ending: BaseException = task._run_again(decision, exc=exc, why=why, **rules.options)
    return ending


def _said(task: BaseTaskWithRetry, rules: RetryRules, exc: BaseException) -> Said:
    """Return what the task's own ``retry_in`` says, if it has one and ``exc`` is retried at all."""
    if isinstance(exc, Verdict) or not isinstance(rules.policy_for(exc), RetryPolicy):
        return None
    try:
        return verdict_of(task.retry_in(exc, task.request.retries + 1))
    except Exception:
        logger.exception("task %s[%s]: its retry_in() failed; its policy counts", task.name, task.request.id)
        return None


def _moment(expires: Any, now: float, app: Any) -> float | None:
    try:
        if isinstance(expires, (int, float)):
            return now + expires
        moment = maybe_iso8601(expires) if isinstance(expires, str) else expires
        if not isinstance(moment, datetime):
            return None
        return (moment if moment.tzinfo else moment.replace(tzinfo=app.timezone)).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None  # nonsense that the worker didn't mind either


def _header(request: Any, name: str) -> Any:
    """Return a header of the message, None if it lacks it; a task that is applied eagerly has them in a dict only."""
    value = getattr(request, name, None)
    return (request.headers or {}).get(name) if value is None else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
