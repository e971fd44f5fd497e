"""What django-taskkit costs where nothing fails: throughput of a worker, publishing, database queries.

Real workers, a real Redis. Both sides run the same messages with the same options, by turns, in small batches, so
that whatever else the machine does falls on both alike. ``python benchmarks/happy_path.py --help``
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path

import celery
import django
import redis
from sides import HERE, QUEUE, SIDES, Worker, environment

LEAST_RATIO = 0.97
WARM_UP = 200


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that workers and keys don't stay
    client = redis.Redis.from_url(options.redis)
    prefix = f"taskkit-bench-{uuid.uuid4().hex[:8]}:"
    client.ping()
    print(
        f"Python {platform.python_version()}, Celery {celery.__version__}, Django {django.__version__}, "
        f"Redis {client.info('server')['redis_version']}, {platform.machine()}, {_processor()}"
    )
    with tempfile.TemporaryDirectory(prefix="taskkit-bench-") as name:
        bench = Bench(options, client, prefix, Path(name))
        try:
            ratios = [bench.throughput(results) for results in (False, True)]
            bench.publishing()
            bench.calls()
        finally:
            bench.clean()
    worst = min(ratios)
    verdict = "as promised" if worst >= LEAST_RATIO else "NOT as promised"
    print(f"\nlowest median ratio {worst:.3f}; promised: {LEAST_RATIO} or more: {verdict}")
    return 0 if worst >= LEAST_RATIO else 1


class Bench:
    """All measurements against one Redis, with keys of its own."""

    def __init__(self, options: argparse.Namespace, client: redis.Redis, prefix: str, folder: Path) -> None:
        self.options = options
        self.client = client
        self.prefix = prefix
        self.folder = folder

    def environment(self, side: str, results: bool) -> dict[str, str]:
        known = {
            "redis_url": self.options.redis,
            "prefix": self.prefix,
            "folder": self.folder,
            "control": self.options.control,
        }
        return environment(side, results=results, **known)

    def throughput(self, results: bool) -> float:
        """Compare workers, a fresh one of each side for each pair; returns the median ratio of tasks per second."""
        kind = "results in Redis" if results else "no result backend"
        number = self.options.batches * self.options.batch
        print(f"\n{self.options.pool}, {self.options.concurrency} at once, {kind}; {number} tasks per worker and pair")
        print("pair   plain/s  taskkit/s   ratio   CPU of one, us: plain  taskkit   ratio")
        batch = self._messages()
        pairs = []
        for pair in range(self.options.pairs):
            seconds, cpu = self._pair(batch, results, flipped=bool(pair % 2))
            rates = [number / seconds[side] for side in SIDES]
            pairs.append((rates[1] / rates[0], cpu["plain"] / cpu["taskkit"]))
            print(
                f"{pair + 1:4} {rates[0]:9.0f} {rates[1]:10.0f} {pairs[-1][0]:7.3f} "
                f"{cpu['plain'] / number * 1e6:23.1f} {cpu['taskkit'] / number * 1e6:8.1f} {pairs[-1][1]:7.3f}",
                flush=True,
            )
        by_time, by_cpu = zip(*pairs, strict=True)
        print(f"ratio of tasks per second: {_spread(by_time)}")
        if not math.isnan(by_cpu[0]):
            print(f"ratio of tasks per second of CPU: {_spread(by_cpu)}")
        for side in SIDES:
            file = self.folder / f"queries-{side}"
            print(f"database connections and queries, {side}: {file.stat().st_size if file.exists() else 0}")
        return statistics.median(by_time)

    def _pair(self, batch: list[bytes], results: bool, flipped: bool) -> tuple[dict[str, float], dict[str, float]]:
        order = list(reversed(SIDES)) if flipped else list(SIDES)
        seconds, cpu = dict.fromkeys(SIDES, 0.0), dict.fromkeys(SIDES, 0.0)
        workers: dict[str, Worker] = {}
        kind = {"pool": self.options.pool, "concurrency": self.options.concurrency}
        try:
            for side in order:
                workers[side] = Worker(side, self.environment(side, results), self.client, **kind)
            for side in order:
                workers[side].run(batch[:WARM_UP])
            for _ in range(self.options.batches):
                for side in order:
                    took, used = workers[side].run(batch)
                    seconds[side] += took
                    cpu[side] += used
                order.reverse()
        finally:
            for worker in workers.values():
                worker.stop()
        return seconds, cpu

    def _messages(self) -> list[bytes]:
        """Messages as plain Celery makes them, the same for both sides."""
        self._publish("plain", self.options.batch)
        key = f"{self.prefix}plain:{QUEUE}"
        messages: list[bytes] = self.client.lrange(key, 0, self.options.batch - 1)
        self.client.delete(key)
        return messages

    def publishing(self) -> None:
        """Compare ``apply_async``, a fresh process of each side for each pair."""
        print(f"\napply_async, {self.options.publish} per process and pair; microseconds for one")
        print("pair   plain  taskkit  difference (of CPU)")
        found = []
        for pair in range(self.options.pairs):
            order = list(reversed(SIDES)) if pair % 2 else list(SIDES)
            times = {}
            for side in order:
                times[side] = self._publish(side, self.options.publish)
                self.client.delete(f"{self.prefix}{side}:{QUEUE}")
            plain, ours = times["plain"], times["taskkit"]
            found.append((ours[0] - plain[0], ours[1] - plain[1]))
            print(f"{pair + 1:4} {plain[0]:7.1f} {ours[0]:8.1f} {found[-1][0]:11.1f} ({found[-1][1]:.1f})", flush=True)
        by_time, by_cpu = zip(*found, strict=True)
        print(f"added to one apply_async: {_spread(by_time, 1)} us; of CPU: {_spread(by_cpu, 1)} us")

    def calls(self) -> None:
        """Compare how many function calls Celery and django-taskkit make for a task in the worker's main process.

        The same each time, unlike all calls: how often the event loop turns depends on what else the machine does.
        """
        batch = self._messages()
        kind = {"pool": self.options.pool, "concurrency": self.options.concurrency}
        made, of_all = {}, {}
        for side in SIDES:
            worker = Worker(side, self.environment(side, False), self.client, counted=True, **kind)
            try:
                for _ in range(4):
                    worker.run(batch)
            finally:
                worker.stop()
            counts = json.loads((self.folder / f"calls-{side}").read_text())
            made[side], of_all[side] = (count / (4 * len(batch)) for count in counts)
        print(
            f"\nfunction calls in the worker's main process for one task, by Celery and django-taskkit: "
            f"plain {made['plain']:.1f}, taskkit {made['taskkit']:.1f}; "
            f"with kombu, redis-py and the event loop: {of_all['plain']:.0f} and {of_all['taskkit']:.0f}"
        )

    def _publish(self, side: str, number: int) -> list[float]:
        command = [sys.executable, str(HERE / "publish.py"), str(number)]
        env = self.environment(side, False)
        done = subprocess.run(command, env=env, cwd=self.folder, stdout=subprocess.PIPE, text=True, check=True)
        return [seconds * 1e6 for seconds in json.loads(done.stdout)]

    def clean(self) -> None:
        """Delete the keys of this run, and no others."""
        for key in self.client.scan_iter(f"{self.prefix}*", count=1000):
            self.client.delete(key)


def _spread(values: Sequence[float], digits: int = 3) -> str:
    """The median, the quarters around it and the extremes."""
    low, middle, high = statistics.quantiles(values, n=4)
    ends = f"{min(values):.{digits}f} to {max(values):.{digits}f}"
    return f"median {middle:.{digits}f}, half of them {low:.{digits}f} to {high:.{digits}f}, all {ends}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0", help="keys get a prefix of their own")
    parser.add_argument("--pool", default="prefork", choices=["prefork", "threads", "solo"])
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=9, help="workers of each side, at least 7 for a verdict")
    parser.add_argument("--batches", type=int, default=10, help="by turns, within one pair")
    parser.add_argument("--batch", type=int, default=500, help="tasks in one batch")
    parser.add_argument("--publish", type=int, default=3000, help="apply_async calls per process")
    parser.add_argument("--control", action="store_true", help="plain against plain: how much this machine's noise is")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
