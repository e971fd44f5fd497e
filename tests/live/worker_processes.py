"""Real workers, in processes of their own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from brokers import Broker
from waiting import wait_until

SETTINGS_VARIABLE = "TASKKIT_TEST_CELERY"

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent


def celery_settings() -> dict[str, Any]:
    """What `Worker` told this process about its broker; empty outside a worker."""
    return json.loads(os.environ.get(SETTINGS_VARIABLE, "{}"))


class Worker:
    """``python -m celery -A <app> worker`` in a process group of its own."""

    def __init__(
        self,
        app: str,
        broker: Broker,
        *,
        pool: str = "prefork",
        concurrency: int = 1,
        queues: Sequence[str] = (),
        arguments: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str | None] | None = None,
        folder: Path,
    ) -> None:
        self.name = f"w{uuid.uuid4().hex[:8]}"
        self.log_path = Path(folder) / f"{self.name}.log"
        self.command = [
            *(sys.executable, "-m", "celery", "-A", app, "worker", f"--pool={pool}"),
            *(f"--concurrency={concurrency}", "--loglevel=INFO", f"--hostname={self.name}@localhost"),
            *([f"--queues={','.join(queues)}"] if queues else []),
            *arguments,
        ]
        self.env = worker_environment({**broker.settings, **(settings or {})}, env or {})
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, timeout: float = 60) -> Worker:
        """Returns when the worker says that it is ready."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
            )

        def ready() -> bool:
            if not self.alive:
                raise AssertionError(f"the worker ended with {self.process.returncode}:\n{self.log_tail()}")
            return " ready." in self.log()

        try:
            wait_until(ready, timeout, f"worker {self.name} is ready")
        except BaseException:
            self._kill_group()
            raise
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None, "the worker was not started"
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def children(self) -> list[int]:
        """The pids of the pool's processes (prefork)."""
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True, check=False
        )
        return [int(pid) for pid in listing.stdout.split()]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def log_tail(self, lines: int = 80) -> str:
        return "\n".join(self.log().splitlines()[-lines:])

    def wait_for_log(self, text: str, timeout: float = 30) -> None:
        wait_until(lambda: text in self.log(), timeout, f"{text!r} in the log of worker {self.name}")

    def wait(self, timeout: float = 30) -> int:
        """Its exit code, once it has ended by itself."""
        assert self.process is not None, "the worker was not started"
        return self.process.wait(timeout)

    def stop(self, timeout: float = 15) -> None:
        """Warm shutdown (TERM); after `timeout` seconds, KILL. Safe to call twice."""
        if self.alive:
            os.kill(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.wait(timeout)
        self._kill_group()

    def kill(self) -> None:
        """kill -9 of the parent alone, as the kernel's OOM killer would; `stop` ends what it left behind."""
        os.kill(self.pid, signal.SIGKILL)
        self.wait(10)

    def _kill_group(self) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def worker_environment(settings: Mapping[str, Any], extra: Mapping[str, str | None]) -> dict[str, str]:
    path = [str(ROOT), str(HERE), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    values: dict[str, str | None] = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, dict.fromkeys(path))),
        "PYTHONUNBUFFERED": "1",
        "C_FORCE_ROOT": "1",  # containers run as root; Celery then refuses to accept pickle
        SETTINGS_VARIABLE: json.dumps(settings),
        **extra,
    }
    return {name: value for name, value in values.items() if value is not None}


running_workers: list[Worker] = []
"""Workers whose log a failing test shows; see conftest."""


@contextlib.contextmanager
def workers(folder: Path) -> Iterator[Callable[..., Worker]]:
    """A factory for started workers, all of which are stopped at the end."""
    started: list[Worker] = []

    def start_worker(app: str, broker: Broker, *, ready_within: float = 60, **options: Any) -> Worker:
        worker = Worker(app, broker, folder=folder, **options)
        started.append(worker)
        running_workers.append(worker)
        return worker.start(ready_within)

    try:
        yield start_worker
    finally:
        for worker in started:
            worker.stop()
            running_workers.remove(worker)
