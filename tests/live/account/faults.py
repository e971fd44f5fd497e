"""What breaks while messages are sent and run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass

from account.programs import Program
from account.stage import Stage


@dataclass(frozen=True)
class Pace:
    """Seconds between two faults of a kind, and seconds that an outage lasts."""

    child: float = 4
    worker: float = 12
    broker: float = 31
    broker_down: float = 2
    database: float = 23
    database_down: float = 5


QUICK = Pace(child=2, worker=8, database=8, database_down=4)
"""All of them within a dozen seconds, for a small run."""


@dataclass(frozen=True)
class Fault:
    at: float
    kind: str
    what: str


class Faults:
    """Kills and outages, each kind at its own pace, until they are stopped; then everything is up again."""

    def __init__(self, stage: Stage, workers: list[Program], pace: Pace, seed: int) -> None:
        self.stage = stage
        self.workers = workers
        self.pace = pace
        self.random = random.Random(seed)
        self.done: list[Fault] = []
        self.held: set[str] = set()
        """Items that a broker without persistence held when it was killed."""
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=self._kill, daemon=True), self._outages("broker", pace.broker)]
        if stage.database is not None:
            self._threads.append(self._outages("database", pace.database))

    def start(self) -> Faults:
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        self._stopped.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()

    def counts(self) -> dict[str, int]:
        return dict(Counter(fault.kind for fault in self.done))

    def wait_for_each_kind(self, seconds: float) -> None:
        """Wait until there was one of each; workers that don't get up at all are not killed."""
        deadline = time.monotonic() + seconds
        kinds = len(self._threads) + 1  # one thread kills children and workers
        while len(self.counts()) < kinds and time.monotonic() < deadline:
            time.sleep(0.3)

    def _note(self, kind: str, what: str) -> None:
        self.done.append(Fault(time.time(), kind, what))

    def _kill(self) -> None:
        last = time.monotonic()
        while not self._stopped.wait(self.pace.child):
            # One that is just starting runs nothing yet.
            ready = [worker for worker in self.workers if worker.ready]
            if not ready:
                continue
            worker = self.random.choice(ready)
            # The other one goes on meanwhile: on a slow machine they would start most of the time.
            if time.monotonic() - last > self.pace.worker and ready == self.workers:
                last = time.monotonic()
                self._note("workers killed", f"kill -9 of {worker.name} and all its children")
                worker.end_group()
            elif children := worker.children():
                child = self.random.choice(children)
                self._note("children killed", f"kill -9 of {child}, child of {worker.name}")
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)

    def _outages(self, kind: str, every: float) -> threading.Thread:
        server = self.stage.messages if kind == "broker" else self.stage.database
        down = self.pace.broker_down if kind == "broker" else self.pace.database_down

        def run() -> None:
            # The first broker outage falls into the first of the database.
            wait = every / 2 if kind == "database" else self.pace.database / 2 + self.pace.database_down / 3
            while not self._stopped.wait(wait):
                wait = every
                if kind == "broker" and not self.stage.durable:
                    self.held |= self.stage.held()
                self._note(f"{kind} outages", f"{kind} down for {down} s")
                server.kill()
                self._stopped.wait(down)
                server.start()

        return threading.Thread(target=run, daemon=True)

    def near(self, moment: float, seconds: float = 3) -> list[str]:
        return [f"{fault.at - moment:+.1f} s {fault.what}" for fault in self.done if abs(fault.at - moment) <= seconds]
