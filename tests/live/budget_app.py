"""The worker of test_retry_budget.py, and its relay: tasks that call a dependency over HTTP."""

from __future__ import annotations

import os
import sys
import urllib.request

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "budget_settings")

import harness
from celery import Celery, shared_task
from django.core.management import execute_from_command_line

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.gates.breaker import CircuitBreaker
from django_taskkit.base_tasks.gates.budget import RetryBudget

app = Celery("budget")
app.conf.update(harness.celery_settings())

BUDGET = RetryBudget("shop", probe_every=2, wait=1, wait_max=4)
BREAKER = CircuitBreaker("bank", minimum_calls=10, window=30, open_for=2, open_for_max=4, probes=2, lease=20)

OPTIONS = {
    "base": BaseTaskWithRetry,
    "autoretry_for": (OSError,),
    "max_retries": 5,
    "retry_backoff": 1,
    "retry_backoff_max": 1,
    "ignore_result": True,
}


def call(address: str, kind: str, number: int) -> None:
    with urllib.request.urlopen(f"{address}/{kind}/{number}", timeout=10):  # noqa: S310 (a server of the test)
        pass


@shared_task(name="budget.without", **OPTIONS)
def without(address: str, number: int) -> None:
    call(address, "without", number)


@shared_task(name="budget.within", retry_budget=BUDGET, **OPTIONS)
def within(address: str, number: int) -> None:
    call(address, "within", number)


@shared_task(name="budget.broken", breaker=BREAKER, **OPTIONS)
def broken(address: str, number: int) -> None:
    call(address, "broken", number)


if __name__ == "__main__":
    execute_from_command_line(sys.argv)
