"""One run: everything is sent while things break, then it is quiet, then it is counted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import celery
from waiting import wait_until
from worker_processes import ROOT

from account import balance
from account.faults import Faults, Pace
from account.programs import Program, Supervisor, environment, relays, workers
from account.stage import VISIBILITY_TIMEOUT, Stage
from account.watch import Watch

MOST_STORIES = 40


@dataclass
class Result:
    """The figures of one run."""

    project: str
    broker: str
    mix: str
    messages: int
    seed: int
    celery: str = celery.__version__
    durable: bool = True
    items: int = 0
    succeeded: int = 0
    dead: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    state_only: int = 0
    lost_by_broker: int = 0
    missing: int = 0
    duplicates: dict[str, int] = field(default_factory=dict)
    """Runs that came to their end after one of the same item had, by fate."""
    also_dead: dict[str, int] = field(default_factory=dict)
    """Items that succeeded and have a dead letter as well, by its reason."""
    refused: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    worker_starts: int = 0
    seconds: int = 0
    capped: bool = False
    missing_fates: dict[str, int] = field(default_factory=dict)
    ends: dict[str, dict[str, int]] = field(default_factory=dict)
    stories: list[str] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Queues that the broker lists and can't read any more, and what it says; their messages are missing."""
    folder: str = ""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is missing, and only what a dead letter holds up is waiting."""
        return not self.missing and not self.capped and set(self.waiting) <= {balance.BEHIND}

    def figures(self) -> dict[str, Any]:
        """What is worth keeping."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("stories", "folder", "ends", "unreadable")
        }


def run(
    project: str,
    broker: str,
    count: int,
    *,
    toxic: bool = True,
    seed: int = 1,
    rate: float = 60,
    pace: Pace | None = None,
    cap: float = 300,
    durable: bool = True,
    visibility_timeout: int = VISIBILITY_TIMEOUT,
    say: Callable[[str], None] = print,
) -> Result:
    """Send ``count`` messages and account for them.

    ``rate``: messages per second; ``cap``: seconds that may pass after the last was sent; ``visibility_timeout``: of
    Redis, in seconds.
    """
    began = time.monotonic()
    with Stage(broker, project, durable, visibility_timeout) as stage:
        say(f"{project} on {broker}: {count} messages, {stage.folder}")
        _migrate(stage)
        watch = Watch(stage, say)
        team = workers(stage, 2)
        everyone = Supervisor([*team, *relays(stage, 2)])
        producer = Program(stage, "producer", "-m", "account.producer", str(count), str(seed), str(rate))
        producer.command.append("toxic" if toxic else "standard")
        faults = Faults(stage, team, pace or Pace(), seed)
        everyone.start()
        try:
            wait_until(lambda: all(worker.ready for worker in team), 180, "the workers are ready", interval=0.3)
            producer.start()
            faults.start()
            watch.until_sent(producer, 60 + 4 * count / rate)
            watch.until_half_ran(count / rate)
            faults.wait_for_each_kind(60)
            # With the faults over, whatever can still be done is done.
            faults.stop()
            quiet = watch.until_quiet(cap)
        finally:
            faults.stop()
            everyone.stop()
            producer.stop()
        assert producer.process.returncode == 0, producer.log()[-3000:]
        sent = watch.look()
        missing = balance.settle(stage, sent, stage.waiting(), faults.held)
        result = _result(
            stage, sent, Result(project, broker, "toxic" if toxic else "standard", count, seed, durable=durable)
        )
        result.capped = not quiet
        result.worker_starts = sum(worker.starts for worker in team)
        result.faults = faults.counts()
        result.stories = [balance.story(item, stage, faults) for item in missing[:MOST_STORIES]]
        result.seconds = round(time.monotonic() - began)
    if result.is_settled:
        shutil.rmtree(result.folder, ignore_errors=True)  # else its logs are of use
    return result


def _migrate(stage: Stage) -> None:
    if stage.database is not None:
        command = [sys.executable, "-m", "django", "migrate", "--verbosity=0"]
        subprocess.run(command, cwd=ROOT, env=environment(stage), check=True, timeout=120)


def _result(stage: Stage, sent: balance.Sent, result: Result) -> Result:
    items = sent.items.values()
    result.items = len(items)
    result.succeeded = sum(item.end == "succeeded" for item in items)
    result.dead = dict(Counter(item.detail for item in items if item.end == "dead").most_common())
    result.waiting = dict(Counter(item.detail for item in items if item.end == "waiting").most_common())
    result.state_only = sum(item.end == "state only" for item in items)
    result.lost_by_broker = sum(item.end == "lost by the broker" for item in items)
    result.missing = sum(item.end == "missing" for item in items)
    for item in items:
        if item.successes > 1:
            result.duplicates[item.fate] = result.duplicates.get(item.fate, 0) + item.successes - 1
    result.also_dead = dict(Counter(item.detail for item in items if item.end == "succeeded" and item.detail))
    result.refused = dict(sent.refusals)
    result.missing_fates = dict(Counter(item.fate for item in items if item.end == "missing").most_common())
    for item in items:
        ends = result.ends.setdefault(f"{item.fate}.{item.name[-1]}", {})
        end = f"{item.end} {item.detail}".strip()
        ends[end] = ends.get(end, 0) + 1
    result.unreadable = dict(stage.unreadable)
    result.folder = str(stage.folder)
    return result
