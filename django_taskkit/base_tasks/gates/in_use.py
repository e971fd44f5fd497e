"""The budgets and breakers that the tasks of an app name, and how they stand: for metrics and for people."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from django_taskkit.base_tasks.gates.breaker import CircuitBreaker, State, breaker_of
from django_taskkit.base_tasks.gates.budget import RetryBudget, budget_of


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How the budget and the breaker of one name stand; None for what no task uses."""

    budget: float | None = None
    """Tokens that are there; retries run while it is more than half of ``tokens``."""
    tokens: float | None = None
    """The most that the budget holds."""
    breaker: State | None = None


def in_use(app: Any) -> dict[str, Standing]:
    """Return how each budget and breaker stands that a task of ``app`` names, by name.

    One round trip for each, none if no task names one; the workers' tasks have to be loaded in this process.

    Raises:
        ConfigurationError: a task's option makes no sense.
        StoreError: the store is out of reach.
    """
    budgets: dict[str, RetryBudget] = {}
    breakers: dict[str, CircuitBreaker] = {}
    for task in list(app.tasks.values()):
        if (budget := budget_of(task)) is not None:
            budgets.setdefault(budget.name, budget)
        if (breaker := breaker_of(task)) is not None:
            breakers.setdefault(breaker.name, breaker)
    found = {name: Standing(budget=budget.level(), tokens=budget.tokens) for name, budget in budgets.items()}
    for name, breaker in breakers.items():
        found[name] = replace(found.get(name, Standing()), breaker=breaker.state())
    return dict(sorted(found.items()))
