"""How fast dead letters are put back, and in how much memory: the loop that people write against ``requeue()``.

Real Redis and RabbitMQ, a real database (``TASKKIT_TEST_DATABASE``: sqlite, postgresql or mariadb). Both sides put back
rows of the same kind from the same table, by turns, in processes of their own. ``python benchmarks/requeue.py --help``
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIDES = ("loop", "taskkit")
PROMISED = {"redis": 10, "rabbitmq": 7}
TRACEBACK = "\n".join(f'  File "/srv/shop/orders/{line}.py", line {line}, in pay' for line in range(40))
FLAT = 1.05
"""How much larger the peak may be with five times the rows."""


def main() -> int:
    options = _options()
    name = f"taskkit_bench_{uuid.uuid4().hex[:8]}"
    kind = os.environ.get("TASKKIT_TEST_DATABASE", "sqlite")
    with tempfile.TemporaryDirectory(prefix="taskkit-bench-") as folder:
        os.environ.update(
            BENCH_SIDE="driver",
            BENCH_DATABASE=str(Path(folder, "db.sqlite3")) if kind == "sqlite" else name,
            BENCH_QUEUE=name,
            BENCH_BROKER=options.redis,
            DJANGO_SETTINGS_MODULE="requeue_settings",
            PYTHONPATH=os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        )
        sys.path[:0] = [str(HERE), str(HERE.parent)]
        import requeue_app  # noqa: F401
        from django.db import connection

        connection.creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
        try:
            return _measure(options, kind, name)
        finally:
            connection.creation.destroy_test_db(connection.settings_dict["NAME"], verbosity=0)


def _measure(options: argparse.Namespace, kind: str, queue: str) -> int:
    import celery
    import django

    print(
        f"Python {platform.python_version()}, Celery {celery.__version__}, Django {django.__version__}, {kind}, "
        f"{os.cpu_count()} cores"
    )
    is_as_promised = True
    for broker, url in (("redis", options.redis), ("rabbitmq", options.rabbitmq)):
        if options.broker not in (broker, "both"):
            continue
        os.environ["BENCH_BROKER"] = url
        try:
            ratio = _compare(broker, options.turns, options.batch)
            is_as_promised &= ratio >= PROMISED[broker]
            is_as_promised &= _memory(broker, options.rows)
        finally:
            _clean(url, queue)
    print("\nas promised" if is_as_promised else "\nNOT as promised")
    return 0 if is_as_promised else 1


def _compare(broker: str, turns: int, batch: int) -> float:
    """Both sides by turns; returns the median ratio of their rates."""
    print(f"\n{broker}: {turns} turns of {batch} rows\nturn   loop/s  taskkit/s   ratio   of CPU")
    first = _fill(batch * (turns + 1) * len(SIDES))
    ratios, by_cpu, rates = [], [], []
    with _Side("loop") as loop, _Side("taskkit") as ours:
        sides = {"loop": loop, "taskkit": ours}
        for turn in range(turns + 1):
            found = {}
            for side in SIDES if turn % 2 else reversed(SIDES):
                found[side] = sides[side].put_back(first, batch)
                first += batch
            if not turn:  # to warm up
                continue
            rate = {side: batch / found[side]["seconds"] for side in SIDES}
            rates.append(rate)
            ratios.append(rate["taskkit"] / rate["loop"])
            by_cpu.append(found["loop"]["cpu"] / found["taskkit"]["cpu"])
            columns = f"{turn:4} {rate['loop']:8.0f} {rate['taskkit']:10.0f} {ratios[-1]:7.1f} {by_cpu[-1]:8.1f}"
            print(columns, flush=True)
    medians = {side: statistics.median(rate[side] for rate in rates) for side in SIDES}
    ratio = statistics.median(ratios)
    print(
        f"median: loop {medians['loop']:.0f}/s, taskkit {medians['taskkit']:.0f}/s, ratio {ratio:.1f} "
        f"(by CPU {statistics.median(by_cpu):.1f}); promised: {PROMISED[broker]}"
    )
    return ratio


def _memory(broker: str, sizes: list[int]) -> bool:
    """Peak memory of a process that puts back so many rows in one call; says whether it is flat."""
    peaks = []
    for size in sizes:
        first = _fill(size)
        with _Side("taskkit") as side:
            found = side.put_back(first, size)
        peaks.append(found["peak"])
        rate = size / found["seconds"]
        print(f"{broker}: {size} rows in one call: {rate:.0f}/s, peak {found['peak'] / 1024:.1f} MiB", flush=True)
    return not peaks or max(peaks) <= FLAT * min(peaks)


class _Side:
    """A process that puts back rows when it is told to."""

    def __init__(self, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "requeue_side.py")],
            env={**os.environ, "BENCH_SIDE": name},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def put_back(self, first: int, count: int) -> dict[str, float]:
        print(first, first + count - 1, file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline() if self.process.stdout else ""
        if not answer:
            raise SystemExit("a side has ended; see above")
        found: dict[str, float] = json.loads(answer)
        if found["count"] != count:
            raise SystemExit(f"{found['count']} of {count} rows were put back")
        return found

    def __enter__(self) -> _Side:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.communicate(timeout=60)


def _fill(count: int) -> int:
    """Write ``count`` dead letters as Celery's messages are; return the first key."""
    from django.utils import timezone
    from kombu.utils.json import dumps
    from requeue_app import app

    from django_taskkit.models import DeadLetter

    now = timezone.now()
    first = 0
    for start in range(0, count, 2000):
        rows = []
        for number in range(start, min(start + 2000, count)):
            task_id = str(uuid.uuid4())
            message = app.amqp.as_task_v2(task_id, "bench.receipt", (number,), {"text": "a receipt", "flag": True})
            rows.append(
                DeadLetter(
                    task_id=task_id,
                    task_name="bench.receipt",
                    reason="exception",
                    exception_class="requests.exceptions.ConnectionError",
                    exception_message="the shop's bank did not answer within 30 seconds",
                    traceback=TRACEBACK,
                    died_at=now,
                    queue=app.conf.task_default_queue,
                    body=dumps(message.body).encode(),
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers={**message.headers, "origin": "web-1"},
                    properties={**message.properties, "delivery_mode": 2, "priority": 0},
                    routing_key=app.conf.task_default_queue,
                )
            )
        DeadLetter.objects.bulk_create(rows)
        first = first or DeadLetter.objects.get(task_id=rows[0].task_id).pk
    return first


def _clean(url: str, queue: str) -> None:
    """Delete what this run has sent, and nothing else."""
    from celery import Celery

    options = {"global_keyprefix": f"{queue}:"} if url.startswith("redis") else {}
    app = Celery("cleaning", broker=url, set_as_current=False)
    with app.connection_for_write(transport_options=options) as connection:
        if url.startswith("redis"):
            import redis

            client = redis.Redis.from_url(url)
            for key in client.scan_iter(f"{queue}:*", count=1000):
                client.delete(key)
        else:
            connection.default_channel.queue_delete(queue)
            connection.default_channel.exchange_delete(queue)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--broker", default="both", choices=["redis", "rabbitmq", "both"])
    parser.add_argument("--redis", default="redis://127.0.0.1:6379/0", help="keys get a prefix of their own")
    parser.add_argument("--rabbitmq", default="amqp://guest:guest@127.0.0.1:5672//", help="gets a queue of its own")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--batch", type=int, default=6000, help="rows of each side in one turn")
    parser.add_argument("--rows", type=int, nargs="*", default=[20_000, 100_000], help="in one call, for the memory")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
