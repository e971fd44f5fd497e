"""The processes of one run: a producer, workers and relays, the latter two started again whenever they end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from worker_processes import HERE, ROOT, SETTINGS_VARIABLE

from account.ledger import FILE_VARIABLE
from account.projects import PROJECT_VARIABLE
from account.stage import Stage

WORKER = ("-m", "celery", "-A", "account.project", "worker", "--loglevel=INFO", "--pool=prefork", "--concurrency=2")
RELAY = ("-m", "django", "taskkit", "relay")


class Program:
    """One command, in a process group of its own; what it prints is appended to ``NAME.log``."""

    def __init__(self, stage: Stage, name: str, *arguments: str) -> None:
        self.name = name
        self.command = [sys.executable, *arguments]
        self.log_path = stage.folder / f"{name}.log"
        self.environment = environment(stage)
        self.process: subprocess.Popen[bytes] | None = None
        self.starts = 0
        self._log_start = 0

    def start(self) -> Program:
        self.end_group()
        with open(self.log_path, "ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        self.starts += 1
        return self

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it runs and said that it is ready: of a worker."""
        return self.alive and " ready." in self.log(self._log_start)

    def log(self, start: int = 0) -> str:
        if not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")

    def children(self) -> list[int]:
        if not self.alive or self.process is None:
            return []
        listing = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        with contextlib.suppress(OSError):
            return [int(pid) for pid in listing.read_text().split()]
        return []

    def end_group(self) -> None:
        """kill -9 of everything it started."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(10)

    def stop(self, timeout: float = 20) -> None:
        """TERM, and KILL where that is not enough."""
        if self.alive and self.process is not None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout)
        self.end_group()


class Supervisor(threading.Thread):
    """Starts programs again, until it is told to stop them."""

    def __init__(self, programs: list[Program]) -> None:
        super().__init__(daemon=True)
        self.programs = programs
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(0.5):
            for program in self.programs:
                if not program.alive and not self._stopped.is_set():
                    program.start()

    def stop(self) -> None:
        self._stopped.set()
        self.join()
        for program in self.programs:
            if program.alive and program.process is not None:
                program.process.terminate()
        for program in self.programs:
            program.stop()


def environment(stage: Stage) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), str(HERE)])
    values = {
        **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        "PYTHONPATH": path,
        "PYTHONUNBUFFERED": "1",
        "C_FORCE_ROOT": "1",  # containers run as root; Celery then refuses to accept pickle
        SETTINGS_VARIABLE: json.dumps(stage.settings),
        PROJECT_VARIABLE: stage.name,
        FILE_VARIABLE: str(stage.folder / "ledger.jsonl"),
        "TASKKIT_TEST_SPOOL": str(stage.folder / "spool"),
    }
    if stage.database is not None:
        values["DJANGO_SETTINGS_MODULE"] = "account.settings"
        values["TASKKIT_TEST_LIVE_DATABASE"] = json.dumps(stage.database.settings())
    return values


def workers(stage: Stage, count: int) -> list[Program]:
    return [
        Program(stage, f"worker{number}", *WORKER, f"--hostname=w{number}@localhost") for number in range(1, count + 1)
    ]


def relays(stage: Stage, count: int) -> list[Program]:
    names = [f"relay{number}" for number in range(1, count + 1)] if stage.project.ours else []
    return [Program(stage, name, *RELAY) for name in names]
