"""What a retry budget does for a dependency that fails, and what it costs while nothing fails.

    [BENCH_REDIS=redis://…] python benchmarks/retry_budget.py [--rounds N]

Calls for each task come from a model: the package's own policy and token bucket, with a clock that is turned by hand.
Times are real, on a Redis; the keys there have a name of their own and are deleted at the end. Exit code 1 if a success
with a budget costs more than a twentieth of what a task costs a worker.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import retry_budget_app as bench  # noqa: E402
from celery.app.task import Context  # noqa: E402

from django_taskkit.base_tasks.gates import Outcome, Run, Wait  # noqa: E402
from django_taskkit.base_tasks.gates.breaker import BreakerGate, CircuitBreaker  # noqa: E402
from django_taskkit.base_tasks.gates.budget import BudgetGate, RetryBudget  # noqa: E402
from django_taskkit.base_tasks.gates.token_bucket import Bucket  # noqa: E402
from django_taskkit.base_tasks.policy import RetryPolicy  # noqa: E402
from django_taskkit.stores.opening import shared_store  # noqa: E402

BATCH = 100
RATE, OUTAGE, TASKS = 20.0, 120.0, 2400  # tasks per second, seconds of outage, tasks that arrive in that time
LIMIT = 1.05


def model(failing: float, budget: bool, seed: int) -> tuple[float, float, float, int]:
    """Run tasks that arrive evenly through an outage in which calls fail with the chance ``failing``.

    Returns:
        Calls for each task during the outage, and in all; seconds from the end of the outage until the last task
        succeeded; tasks that died.
    """
    chance = random.Random(seed)  # noqa: S311 (nothing secret)
    policy, options = RetryPolicy(max_retries=5), RetryBudget("model")
    waits = RetryPolicy(max_retries=None, backoff=30.0, cap=600)
    terms, bucket = options._terms, Bucket(options.tokens)
    events = [(number / RATE, number, 0, 0) for number in range(TASKS)]
    calls, within, last, dead = 0, 0, OUTAGE, 0
    while events:
        now, task, retries, waited = heapq.heappop(events)
        if budget and retries and bucket.is_spent(terms):
            probed = bucket.probe(terms, now + 1e6)
            if probed is None:
                heapq.heappush(events, (now + waits.delay(waited, uniform=chance.uniform), task, retries, waited + 1))
                continue
            bucket = probed
        calls += 1
        within += now < OUTAGE
        if now >= OUTAGE or chance.random() >= failing:
            bucket = bucket.retry_succeeded(terms) if retries else bucket.succeeded(terms)
            last = max(last, now)
            continue
        bucket = bucket.failed(terms)
        if retries == policy.max_retries:
            dead += 1
            continue
        delay = policy.delay(retries, uniform=chance.uniform)
        if budget and bucket.is_spent(terms):
            delay = max(delay, waits.delay(0, uniform=chance.uniform))
        heapq.heappush(events, (now + delay, task, retries + 1, 0))
    return within / TASKS, calls / TASKS, last - OUTAGE, dead


def report_model() -> None:
    print(f"Model: {TASKS} tasks, {RATE:g} a second, an outage of {OUTAGE:g} s, five retries after 1, 2, 4, 8, 16 s.")
    columns = ("calls a task in it", "calls a task in all", "seconds after it", "dead letters")
    print(f"{'failing':>8}" + "".join(f" | {column:^21}" for column in columns))
    print(f"{'':>8}" + f" | {'without':>10} {'with':>10}" * len(columns))
    for failing in (1.0, 0.5, 0.02):
        sides = [[model(failing, budget, seed) for seed in range(5)] for budget in (False, True)]
        cells = [[statistics.median(run[column] for run in side) for side in sides] for column in range(len(columns))]
        print(f"{failing:>8.0%}" + "".join(f" | {without:>10.4g} {budget:>10.4g}" for without, budget in cells))


def seconds_each(call: Callable[[], object], times: int) -> float:
    started = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - started) / times


def report_operations() -> None:
    budget, breaker = RetryBudget(bench.NAME, probe_every=3600), CircuitBreaker(bench.NAME)
    stripe, bank = BudgetGate(budget), BreakerGate(breaker)
    first, retry = (Run(task=None, request=Context(id="a", retries=n), args=(), kwargs={}) for n in (0, 1))

    def through(gate: BudgetGate | BreakerGate) -> None:
        gate.enter(first)
        gate.leave(first, Outcome.SUCCEEDED)

    def turned_away() -> None:
        with contextlib.suppress(Wait):
            stripe.enter(retry)

    store = shared_store()
    print("\nOperations on Redis, microseconds each:")
    for name, call, times in (
        ("one read (a GET)", lambda: store.read(f"taskkit:{bench.NAME}"), 2000),
        ("budget: a task that succeeds", lambda: through(stripe), 100_000),
        ("breaker: a task that succeeds", lambda: through(bank), 100_000),
        ("budget: a retry, not spent", lambda: stripe.enter(retry), 2000),
        ("budget: a failure", lambda: stripe.leave(first, Outcome.RETRIED), 2000),
        ("budget: a retry that has to wait", turned_away, 2000),
    ):
        print(f"  {name:34} {statistics.median(seconds_each(call, times) for _ in range(5)) * 1e6:8.1f}")
    budget.reset()
    breaker.reset()


def report_success(rounds: int) -> float:
    """Run tasks that succeed on a real worker, some of each side in turns; returns the ratio of those with a budget."""
    app, client = bench.app, bench.client
    app.send_task("benchmark.hold")
    app.send_task("benchmark.mark")
    order = [side for number in range(rounds) for side in (bench.SIDES if number % 2 else bench.SIDES[::-1])]
    for side in order:
        for _ in range(BATCH):
            app.send_task(f"benchmark.{side}")
        app.send_task("benchmark.mark")
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "retry_budget_app", "worker", "-P", "solo"]
    command += ["-l", "ERROR", "--without-gossip", "--without-mingle", "-n", f"{bench.NAME}@localhost"]
    env = {
        **os.environ,
        "C_FORCE_ROOT": "1",
        "BENCH_REDIS": bench.REDIS,
        "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
    }
    worker = subprocess.Popen(command, env=env, cwd=HERE, stdin=subprocess.DEVNULL)
    try:
        client.rpush(f"{bench.NAME}:go", "1")
        deadline = time.monotonic() + 600
        while client.llen(f"{bench.NAME}:marks") <= len(order):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the worker does not go on")
            time.sleep(0.2)
    finally:
        worker.terminate()
        worker.wait(60)
    marks = [float(mark) for mark in client.lrange(f"{bench.NAME}:marks", 0, -1)]
    took: dict[str, list[float]] = {side: [] for side in bench.SIDES}
    for side, began, ended in zip(order, marks, marks[1:], strict=False):
        took[side].append((ended - began) / BATCH)
    print("\nA task that does nothing and succeeds, on a real worker (solo), microseconds of CPU; ratio to neither:")
    ratios = {}
    for side, times in took.items():
        pairs = zip(times, took["neither"], strict=True)
        ratios[side] = statistics.median(ours / plain for ours, plain in pairs)
        print(f"  {side:10} {statistics.median(times) * 1e6:8.1f}   {ratios[side]:6.3f}")
    return ratios["budget"]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20, help="how often each side has its turn on the worker")
    options = parser.parse_args()
    try:
        report_model()
        report_operations()
        return 1 if report_success(options.rounds) > LIMIT else 0
    finally:
        keys = list(bench.client.scan_iter(f"*{bench.NAME}*"))
        if keys:
            bench.client.delete(*keys)


if __name__ == "__main__":
    raise SystemExit(main())
