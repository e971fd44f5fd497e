"""What looking at the arguments adds to a call, in one run: ``python benchmarks/arguments.py [BROKER_URL]``.

Each call is made with and without, by turns, in the same process, by default on kombu's in-memory broker: no real one
is as fast, so the share there is the largest that can be. It ends with 1 if small arguments cost more than a tenth.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(BENCH_FOLDER="", BENCH_PREFIX="", BENCH_REDIS="", BENCH_RESULTS="", BENCH_SIDE="taskkit")
os.environ.update(BENCH_TASKKIT="1", DJANGO_SETTINGS_MODULE="bench_settings")
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

from bench_app import app, nothing  # noqa: E402 (it needs the environment)
from celery import Celery, Task  # noqa: E402

MOST = 1.10

CALLS: dict[str, tuple[int, int, tuple[Any, ...], dict[str, Any]]] = {
    # rounds, calls in each, arguments
    "a number, a text, a flag": (60, 100, (7,), {"text": "a receipt", "flag": True}),
    "a dict of ten values": (60, 100, ({f"field {n}": n for n in range(10)},), {}),
    "100 dicts": (60, 20, ([{"id": n, "text": "x"} for n in range(100)],), {}),
    "100 000 numbers": (15, 1, (list(range(100_000)),), {}),
    "100 000 texts": (15, 1, ([str(n) for n in range(100_000)],), {}),
    "100 000 dicts of two values": (9, 1, ([{"id": n, "text": "x"} for n in range(100_000)],), {}),
}


def seconds(number: int, args: Any, kwargs: Any) -> float:
    started = time.perf_counter()
    for _ in range(number):
        nothing.apply_async(args, kwargs)
    taken = (time.perf_counter() - started) / number
    with app.connection_for_read() as connection:
        connection.default_channel.queue_delete(app.conf.task_default_queue)
    return taken


def without(measure: Callable[[], float]) -> float:
    """Measure with Celery's own functions, without ours around them."""
    ours = Celery.send_task, Task.apply_async
    Celery.send_task, Task.apply_async = (function.__wrapped__ for function in ours)
    try:
        return measure()
    finally:
        Celery.send_task, Task.apply_async = ours


def main() -> int:
    prefix = {"global_keyprefix": f"bench-{os.getpid()}-"}  # read by Redis alone
    app.conf.update(broker_transport_options=prefix, task_default_queue=f"bench-{os.getpid()}")
    app.conf.update(
        broker_url=sys.argv[1] if sys.argv[1:] else "memory://",
        broker_transport=None,
        result_backend=None,
        task_ignore_result=True,
    )
    nothing.apply_async(("warm",))
    too_much = []
    print(f"{'arguments':32} {'without':>12} {'with':>12} {'ratio':>7}")
    for name, (rounds, number, args, kwargs) in CALLS.items():
        pairs = []
        for turn in range(rounds):
            both = [lambda: seconds(number, args, kwargs), lambda: without(lambda: seconds(number, args, kwargs))]  # noqa: B023
            taken = [measure() for measure in (both if turn % 2 else both[::-1])]
            pairs.append(tuple(taken if turn % 2 else taken[::-1]))
        ratio = statistics.median(with_it / without_it for with_it, without_it in pairs)
        one, other = (statistics.median(column) * 1e6 for column in zip(*pairs, strict=True))
        print(f"{name:32} {other:9.1f} us {one:9.1f} us {ratio:7.3f}")
        if number == 100 and ratio > MOST:
            too_much.append(name)
    for name in too_much:
        print(f"{name}: more than {MOST - 1:.0%} slower", file=sys.stderr)
    if (url := app.conf.broker_url).startswith("redis"):
        import redis

        client = redis.Redis.from_url(url)
        client.delete(*client.scan_iter(f"{prefix['global_keyprefix']}*"))
    return 1 if too_much else 0


if __name__ == "__main__":
    sys.exit(main())
