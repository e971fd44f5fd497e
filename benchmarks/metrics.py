"""What metrics cost a task, in one process and by turns: without them, and with Prometheus or OpenTelemetry.

No worker: a task's whole way through Celery's tracer, which is what a process of the pool does for it, and one
``apply_async`` on the in-memory broker. With ``--workers``, real workers on a Redis, by turns, and the CPU that all
their processes use for a task. ``python benchmarks/metrics.py --help``
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import redis
from celery import Celery
from celery.app.trace import build_tracer
from django.conf import settings

SETTINGS = {
    "INSTALLED_APPS": ["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"],
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    "USE_TZ": True,
}


def nothing(number: int) -> int:
    return number


class Nobody:
    """Counts nothing: what the signals alone cost."""

    def add(self, *args: object) -> None: ...

    def observe(self, *args: object) -> None: ...

    def close(self) -> None: ...


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tasks", type=int, default=2000, help="in each round, of each side")
    parser.add_argument("--workers", metavar="REDIS_URL", help="compare real workers on this Redis instead")
    options = parser.parse_args()
    if options.workers:
        _compare_workers(options.workers, options.rounds, options.tasks)
        return
    folder = tempfile.mkdtemp(prefix="taskkit-bench-")
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder  # as in a worker: counts go to files
    settings.configure(**SETTINGS)
    django.setup()
    app = Celery("bench", broker="memory://", backend="disabled://")
    app.task(name="bench.nothing")(nothing)
    app.finalize()
    try:
        sides = _sides()
        for what, work in (("one run", _runner(app)), ("one apply_async", _sender(app))):
            print(f"\n{what}, microseconds of CPU: median of {options.rounds} rounds of {options.tasks}, by turns")
            _compare(sides, work, options.rounds, options.tasks)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sides() -> dict[str, Any]:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from django_taskkit.observability.metrics.opentelemetry import OpenTelemetry
    from django_taskkit.observability.metrics.prometheus import Prometheus

    return {
        "signals alone": Nobody(),
        "prometheus": Prometheus(),
        "opentelemetry": OpenTelemetry(MeterProvider([InMemoryMetricReader()])),
    }


def _compare(sides: dict[str, Any], work: Callable[[int], object], rounds: int, tasks: int) -> None:
    from django_taskkit.observability.metrics import counting

    times: dict[str, list[float]] = {"without": [], **{name: [] for name in sides}}
    for _ in range(rounds):
        times["without"].append(_timed(work, tasks))
        for name, side in sides.items():
            counting.use(side)
            counting.install()
            times[name].append(_timed(work, tasks))
            counting.uninstall()
    for name, found in times.items():
        added = statistics.median(b - a for a, b in zip(times["without"], found, strict=True))
        ratio = statistics.median(b / a for a, b in zip(times["without"], found, strict=True))
        print(f"{name:15} {statistics.median(found):8.1f}   added {added:6.1f}   ratio {ratio:.3f}")


def _compare_workers(url: str, rounds: int, tasks: int) -> None:
    from sides import HERE, QUEUE, Worker, environment

    client = redis.Redis.from_url(url)
    prefix = f"taskkit-bench-{uuid.uuid4().hex[:8]}:"
    workers: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="taskkit-bench-") as name:
        try:
            for side in ("without", "metrics"):
                known = {"redis_url": url, "prefix": prefix, "folder": Path(name), "results": False}
                env = environment(side, **known) | {
                    "BENCH_TASKKIT": "1",
                    "DJANGO_SETTINGS_MODULE": "metrics_settings",
                    "TASKKIT_METRICS_PORT": "0",
                }
                command = [sys.executable, str(HERE / "publish.py"), str(tasks)]
                subprocess.run(command, env=env, cwd=name, stdout=subprocess.DEVNULL, check=True)
                batch = client.lrange(f"{prefix}{side}:{QUEUE}", 0, tasks - 1)
                client.delete(f"{prefix}{side}:{QUEUE}")
                workers[side] = Worker(side, env, client, pool="prefork", concurrency=2)
                workers[side].run(batch)
            found = []
            for _ in range(rounds):
                used = {side: worker.run(batch)[1] / tasks * 1e6 for side, worker in workers.items()}
                found.append((used["without"], used["metrics"]))
                print(
                    f"CPU of one task, us: {used['without']:7.1f} without, {used['metrics']:7.1f} with metrics",
                    flush=True,
                )
            added = statistics.median(b - a for a, b in found)
            print(f"added {added:.1f} us; ratio {statistics.median(b / a for a, b in found):.3f} (medians)")
        finally:
            for worker in workers.values():
                worker.stop()
            for key in client.scan_iter(f"{prefix}*", count=1000):
                client.delete(key)


def _timed(work: Callable[[int], object], number: int) -> float:
    """CPU, so that what else the machine does counts little; microseconds for one."""
    started = time.process_time()
    for turn in range(number):
        work(turn)
    return (time.process_time() - started) / number * 1e6


def _runner(app: Celery) -> Callable[[int], object]:
    from django_taskkit.envelope import SENT_AT_HEADER

    task = app.tasks["bench.nothing"]

    def run(number: int) -> object:
        request = {
            "id": f"task-{number}",
            "task": "bench.nothing",
            "delivery_info": {"exchange": "", "routing_key": "celery", "redelivered": False, "priority": 0},
            "retries": 0,
            "hostname": "bench",
            SENT_AT_HEADER: time.time(),
        }
        return tracer(request["id"], (number,), {}, request)

    tracer = build_tracer("bench.nothing", task, app=app)
    return run


def _sender(app: Celery) -> Callable[[int], object]:
    task = app.tasks["bench.nothing"]

    def send(number: int) -> object:
        if not number:
            app.control.purge()
        return task.apply_async((number,))

    return send


if __name__ == "__main__":
    main()
