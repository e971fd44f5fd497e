"""The two sides of the comparison, as processes: their environment, their worker, what the worker has used."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
SIDES = ("plain", "taskkit")
QUEUE = "bench"
POLL = 0.004


def environment(
    side: str, *, redis_url: str, prefix: str, folder: Path, results: bool, control: bool = False
) -> dict[str, str]:
    """The environment of a process of ``side``; its keys in Redis begin with ``prefix`` and the side's name.

    With ``control`` the other side is plain as well, and what differs is the noise of the machine.
    """
    path = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "BENCH_FOLDER": str(folder),
        "BENCH_PREFIX": f"{prefix}{side}:",
        "BENCH_REDIS": redis_url,
        "BENCH_RESULTS": "1" if results else "",
        "BENCH_SIDE": side,
        "BENCH_TASKKIT": "1" if side == "taskkit" and not control else "",
        "DJANGO_SETTINGS_MODULE": "bench_settings",
        "PYTHONHASHSEED": "0",  # which alone moves the figures by a per cent or two
        "PYTHONPATH": os.pathsep.join(path),
    }


class Worker:
    """A real worker of one side, ready when made; messages come to it as a ready-made batch."""

    def __init__(
        self, side: str, env: dict[str, str], client, *, pool: str, concurrency: int, counted: bool = False
    ) -> None:
        self.client = client
        self.keys = [env["BENCH_PREFIX"] + name for name in (QUEUE, "unacked")]
        self.folder = Path(env["BENCH_FOLDER"])
        ready = self.folder / f"ready-{side}"
        ready.unlink(missing_ok=True)
        program = [str(HERE / "counted_worker.py")] if counted else ["-m", "celery", "-A", "bench_app"]
        command = [sys.executable, *program, "worker", "-l", "WARNING", "-P", pool]
        command += ["-c", str(concurrency), "-n", f"{side}-{os.getpid()}@localhost"]
        with open(self.folder / f"{side}.log", "ab") as log:
            self.process = subprocess.Popen(
                command, env=env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._wait(ready.exists, 120)

    def run(self, batch: list[bytes]) -> tuple[float, float]:
        """Run a batch; returns the seconds until all are acknowledged, and seconds of CPU of all its processes."""
        before, started = self._cpu(), time.perf_counter()
        self.client.lpush(self.keys[0], *batch)
        self._wait(self._is_idle, 600)
        return time.perf_counter() - started, self._cpu() - before

    def _is_idle(self) -> bool:
        with self.client.pipeline() as pipe:
            waiting, unacknowledged = pipe.llen(self.keys[0]).hlen(self.keys[1]).execute()
        return waiting == unacknowledged == 0

    def _cpu(self) -> float:
        pids = [self.process.pid, *_children(self.process.pid)]
        return sum(_cpu_of(pid) for pid in pids)

    def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the worker does not go on; see {self.folder}")
            time.sleep(POLL)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def _children(pid: int) -> list[int]:
    """The processes of a prefork pool, where the system says (Linux)."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def _cpu_of(pid: int) -> float:
    """Seconds of CPU of a process, to the nanosecond; nan where the system does not say."""
    try:
        threads = list(Path(f"/proc/{pid}/task").glob("*/schedstat"))
        return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9 if threads else float("nan")
    except OSError:
        return float("nan")
