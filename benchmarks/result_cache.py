"""What it costs to read a cached result, and how many tasks 200 requests send that miss it at once.

A private Redis is started. ``python benchmarks/result_cache.py --help``
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from private_redis import private_redis

HERE = Path(__file__).resolve().parent
PROMISED = 1.15
REQUESTS, PROCESSES = 200, 4
VALUES = {
    "a dict of 2": {"rows": 12, "total": "99.50"},
    "100 rows": [{"number": number, "name": f"customer {number}", "total": number * 1.5} for number in range(100)],
    "2 000 rows": [{"number": number, "name": f"customer {number}", "total": number * 1.5} for number in range(2000)],
}
CALL = {"user_id": 7, "month": "2026-11"}


def main() -> int:
    options = _options()
    if options.part:
        print(json.dumps(PARTS[options.part[0]](*options.part[1:])))
        return 0
    with tempfile.TemporaryDirectory(prefix="taskkit-bench-") as folder, private_redis(Path(folder)) as url:
        environment = {
            **os.environ,
            "BENCH_REDIS": url,
            "BENCH_DATABASE": str(Path(folder, "db.sqlite3")),
            "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)]),
        }
        environment.pop("DJANGO_SETTINGS_MODULE", None)

        def run(*part: object, **more: str) -> Any:
            return _wait(_start(part, {**environment, **more}))

        run("prepare")
        print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        promised = _hits(run, options.turns)
        _misses(environment, options.rounds)
    print("\nas promised" if promised else "\nNOT as promised")
    return 0 if promised else 1


def _hits(run: Callable[..., Any], turns: int) -> bool:
    print("| a hit on | value | bare `cache.get` | `get_or_dispatch`, ratio | `AsyncResult.get`, ratio |")
    print("|---|---|---|---|---|")
    kept = True
    for place in ("redis", "database"):
        backend = {"redis": "redis", "database": "django-db"}[place]
        for name in VALUES:
            found = run("hit", place, name, turns, BENCH_BACKEND=backend)
            ours, result = f"{found['ours']:.3f}", f"{found['result']:.2f} ({backend})"
            print(f"| {place} | {name} | {found['bare']:.0f} us | {ours} | {result} |", flush=True)
            kept = kept and (place != "redis" or found["ours"] <= PROMISED)
    return kept


def _misses(environment: dict[str, str], rounds: int) -> None:
    print(f"\n| {REQUESTS} misses at once, {PROCESSES} processes | tasks sent, in each round |\n|---|---|")
    for place in ("redis", "database"):
        for way in ("naive", "ours"):
            sent = []
            for number in range(rounds):
                start = time.time() + 4
                parts = [_start(("miss", place, way, number, start), environment) for _ in range(PROCESSES)]
                sent.append(sum(_wait(part) for part in parts))
            title = "the naive helper" if way == "naive" else "`get_or_dispatch`"
            print(f"| {title}, {place} | {', '.join(map(str, sent))} |", flush=True)


def prepare() -> None:
    import result_cache_app  # noqa: F401
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("createcachetable", "bench_cache", verbosity=0)


def hit(place: str, name: str, turns: str) -> dict[str, float]:
    """Measure by turns, so that whatever else the machine does falls on all alike; the medians of the pairs."""
    from django.core.cache import caches
    from result_cache_app import app, build_report

    from django_taskkit.results import ResultCache, Status
    from django_taskkit.results.values import Kept, pack

    value = VALUES[name]
    cached = ResultCache(build_report, timeout=3600, cache=place)
    caches[place].set("bare", value, 3600)
    kept = Kept(value, time.time(), "0d9b5a7e-8d5c-4c3e-9a3c-111111111111", 3600, {})
    caches[place].set(cached.key(**CALL), pack(kept), 3600)
    app.backend.store_result(f"bench {name}", value, "SUCCESS")
    ways: dict[str, Callable[[], Any]] = {
        "bare": lambda: caches[place].get("bare"),
        "ours": lambda: cached.get_or_dispatch(**CALL),
        "result": lambda: app.AsyncResult(f"bench {name}").get(timeout=10),
    }
    if ways["ours"]().status is not Status.HIT or ways["result"]() != value:
        raise SystemExit("what is to be measured is no hit")
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for turn in range(int(turns) + 2):
        for way in sorted(ways, reverse=bool(turn % 2)):
            read = ways[way]
            started = time.perf_counter()
            for _ in range(100):
                read()
            if turn > 1:  # the first ones are to warm up
                seconds[way].append((time.perf_counter() - started) / 100)
    ratios = {
        way: statistics.median(one / bare for one, bare in zip(seconds[way], seconds["bare"], strict=True))
        for way in ("ours", "result")
    }
    return {"bare": statistics.median(seconds["bare"]) * 1e6, **ratios}


def miss(place: str, way: str, number: str, start: str) -> int:
    """Ask with a quarter of all requests, at the same moment as the others; returns how many tasks were sent."""
    from celery.signals import after_task_publish
    from django.core.cache import caches
    from django.db import connections
    from result_cache_app import build_report

    from django_taskkit.results import ResultCache

    sent = []
    after_task_publish.connect(lambda **message: sent.append(message), weak=False)
    cached = ResultCache(build_report, cache=place)
    user = 1000 + int(number)

    def naive() -> None:
        key = f"report-{user}"
        if caches[place].get(key) is None and caches[place].get(f"{key}-task") is None:
            caches[place].set(f"{key}-task", build_report.delay(user).id, 900)

    def ask() -> None:
        time.sleep(max(0.0, float(start) - time.time()))
        naive() if way == "naive" else cached.get_or_dispatch(user)
        connections.close_all()

    threads = [threading.Thread(target=ask) for _ in range(REQUESTS // PROCESSES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(sent)


PARTS: dict[str, Callable[..., Any]] = {"prepare": prepare, "hit": hit, "miss": miss}


def _start(part: tuple[object, ...], environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--part", *map(str, part)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait(process: subprocess.Popen[str]) -> Any:
    output, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"{process.args}:\n{errors[-4000:]}")
    return json.loads(output.splitlines()[-1])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=41, help="of a hundred reads of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="of 200 misses")
    parser.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
