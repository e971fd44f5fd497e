"""Say in a test which outage a task must survive."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from celery.local import Proxy

from django_taskkit.base_tasks.survival import CERTAIN, HORIZON, Survival, retries_needed, survival_of
from django_taskkit.base_tasks.verdicts import seconds_of
from django_taskkit.management.plot import duration
from django_taskkit.management.retry_plans import Plan, plan_for, plans_of, remedy_for
from django_taskkit.management.schedule_report import percent

Error = BaseException | type[BaseException] | None


def assert_survives(task: Any, outage: timedelta | float, *, odds: float = CERTAIN, exc: Error = None) -> None:
    """Assert that ``task`` outlives an outage, by its retry options alone; nothing runs.

    The outage begins with the first failure, and each run fails at once. It is survived if a retry starts at its end
    or later. The same options always give the same answer.

    Args:
        task: a task.
        outage: seconds, or a timedelta.
        odds: the part of its runs that must survive; 1: all.
        exc: the error that the outage causes, or its class, if the task has ``retry_policies``; None: the default.

    Raises:
        AssertionError: it doesn't; the text says what it survives and what to change.
        ValueError: the outage or the odds make no sense.
        ConfigurationError: the options of the task make no sense.
    """
    __tracebackhide__ = True
    seconds = seconds_of(outage)
    if not 0 < odds <= 1:
        raise ValueError(f"odds of {odds!r} make no sense; give a part of 1, for example 0.99")
    if issubclass(type(task), Proxy):  # what @shared_task returns
        task = task._get_current_object()
    plan = _plan(task, exc)
    if plan is None:
        raise AssertionError(remedy_for(task))
    if plan.policy is None:
        raise AssertionError(
            f"{task.name} is dead at its first {plan.title}, which is not retried: name it in autoretry_for or in "
            f"retry_policies, and neither in dont_autoretry_for nor as Permanent."
        )
    survival = survival_of(plan.policy)
    if survival.survived(odds) < seconds:
        raise AssertionError(_complaint(task, plan, survival, seconds, odds))


def _plan(task: Any, exc: Error) -> Plan | None:
    if exc is None:
        return next(iter(plans_of(task)), None)
    return plan_for(task, _made(exc) if isinstance(exc, type) else exc)


def _made(kind: Any) -> BaseException:
    """Return an error of that class, which is all that counts; its constructor may want arguments."""
    try:
        error: BaseException = kind.__new__(kind)
    except TypeError:
        raise ValueError(f"{kind.__name__} can't be made without arguments; give an error, not its class") from None
    return error


def _complaint(task: Any, plan: Plan, survival: Survival, outage: float, odds: float) -> str:
    limit = getattr(plan.policy, "max_retries", None)
    deadline = getattr(plan.policy, "retry_for", None)
    remedies = []
    if deadline is not None and deadline < outage:
        remedies.append(f"retry_for of {duration(deadline)} ends before the outage; make it longer")
    needed = retries_needed(plan.policy, outage, odds=odds)
    if needed is None:
        remedies.append(f"{HORIZON} retries would not be enough; make the delays longer")
    elif limit is not None and needed > limit:
        remedies.append(f"max_retries of {needed} would do, or longer delays")
    return (
        f"{task.name} survives an outage of {duration(outage)} in {percent(survival.odds(outage))} of cases, not in "
        f"{percent(odds)}; one of {duration(survival.survived(odds))} it does. Remedy: {'; '.join(remedies)}. "
        f"See: manage.py taskkit schedule {task.name} --outage {math.ceil(outage)}s"
    )
