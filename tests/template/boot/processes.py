"""A process of the project: started as its deployment says, watched, stopped by TERM or KILL, and read."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.live.waiting import wait_until


class Process:
    """One that is meant to run until it is told to stop."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        grace: float,
        probe: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.environment = dict(environment)
        self.log = log
        self.grace = grace
        self.probe = list(probe)
        """What Python is given to ask how it is."""
        self.process: subprocess.Popen[bytes] | None = None
        self.began_at = 0

    def start(self) -> Process:
        with self.log.open("ab") as log:
            self.began_at = log.tell()
            # A session of its own: a test may signal its group, and no other process gets that.
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def children(self) -> list[int]:
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(self.pid)], capture_output=True, text=True)
        return [int(pid) for pid in listed.stdout.split()]

    def term(self) -> None:
        """As every supervisor does: to the main process alone."""
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """It and all of its children, at once, as when a machine runs out of memory."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(30)

    def ends(self, within: float | None = None) -> int:
        """Wait for its end; returns its code."""
        assert self.process is not None
        try:
            return self.process.wait(within or self.grace)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} still runs after {within or self.grace:g} s:\n{self.tail()}") from None

    def health(self, *more: str) -> subprocess.CompletedProcess[str]:
        """Ask its probe."""
        return subprocess.run(
            [*self.probe, *more], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60
        )

    def is_well(self, *more: str) -> bool:
        if not self.runs:
            raise AssertionError(f"{self.name} has ended:\n{self.tail()}")
        return self.health(*more).returncode == 0

    def output(self) -> str:
        """What it has written since it was started, this time."""
        with self.log.open("rb") as file:
            file.seek(self.began_at)
            return file.read().decode(errors="replace")

    def tail(self) -> str:
        return self.output()[-4000:]

    def says(self, text: str, within: float = 60) -> None:
        wait_until(lambda: text in self.output(), within, f"{self.name} says {text!r}", interval=0.2)

    def records(self) -> list[dict[str, Any]]:
        """Its log, of all its lives. A line that begins as JSON has to be JSON."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]
