"""Sends a message for every way to die, waits for the dead letters, and puts them back.

The worker is one of the project's own, with its own settings, on a queue that only it reads; its tasks touch nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from celery import Celery
from celery.backends.base import DisabledBackend
from django.db import router
from django.db.models import Q

from django_taskkit.dlq import requeue, spool
from django_taskkit.dlq.models import DeadLetter, Reason, Status
from django_taskkit.dlq.publisher import broker_connection
from django_taskkit.exceptions import TaskkitError
from django_taskkit.probe import cleaning
from django_taskkit.probe.cases import CASES, Case
from django_taskkit.probe.tasks import FOLDER_VARIABLE

SPOOL_PAUSE = 5
"""Seconds between two looks into the spool, where dead letters go while the database is busy: no relay need run."""

WORKER = "django_taskkit.probe.worker"


class ProbeError(TaskkitError):
    """The probe could not be made."""


@dataclass(kw_only=True)
class Outcome:
    """What became of one case."""

    case: Case
    task_id: str
    found: str = ""
    """The reason in its dead letter; empty if there is none."""
    intact: bool = False
    """Whether the dead letter holds the very body that was sent."""
    back: str = ""
    """``ran``: requeued, it succeeded; ``sent``: it was put back and died again, as it must; empty: neither."""

    @property
    def captured(self) -> bool:
        return self.found in {reason.value for reason in (self.case.reason, *self.case.also)} and self.intact

    @property
    def passed(self) -> bool:
        return self.captured and self.back == ("ran" if self.case.curable else "sent")


class Probe:
    """One run. Use it as a context manager: it ends its worker, and deletes its queue, its results and dead letters.

    A ``queue`` that is named is emptied and stays; without a name, one is made. ``timeout`` is in seconds: how long
    nothing more may come before the rest counts as missed.
    """

    def __init__(
        self, app: Celery, *, pool: str = "prefork", queue: str = "", app_path: str = "", timeout: float = 120
    ) -> None:
        self.app = app
        self.pool = pool
        self.run_id = uuid.uuid4().hex[:8]
        self.queue = queue or f"taskkit-probe-{self.run_id}"
        self._remove_queue = cleaning.empty_queue if queue else cleaning.delete_queue
        self.app_path = app_path or import_path(app)
        self.timeout = timeout
        results = not isinstance(app.backend, DisabledBackend)
        self.outcomes = [
            Outcome(case=case, task_id=f"taskkit-probe-{self.run_id}-{case.name}")
            for case in CASES
            if pool in case.pools and (results or not case.results)
        ]
        self._bodies: dict[str, bytes] = {}

    def __enter__(self) -> Probe:
        self.folder = Path(tempfile.mkdtemp(prefix="taskkit-probe-"))
        self.log = self.folder / "worker.log"
        self.hostname = f"taskkit-probe-{self.run_id}@localhost"
        command = [
            *(sys.executable, "-m", "celery", "-A", WORKER, "worker", f"--pool={self.pool}"),
            *("--concurrency=4", "--loglevel=INFO", f"--hostname={self.hostname}", f"--queues={self.queue}"),
            *("--without-gossip", "--without-mingle"),
        ]
        known = {"TASKKIT_PROBE_APP": self.app_path, "TASKKIT_PROBE_QUEUE": self.queue}
        environment = {**os.environ, FOLDER_VARIABLE: str(self.folder), **known}
        with open(self.log, "wb") as log:
            self._worker = subprocess.Popen(  # noqa: S603 (of our own words and the project's)
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        try:
            self._wait_until(lambda: b" ready." in self.log.read_bytes(), "the probe's worker is ready")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        Path(self.folder, "cured").touch()  # what still runs comes to its end
        with suppress(ProcessLookupError):
            os.killpg(self._worker.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._worker.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(self._worker.pid, signal.SIGKILL)
        self._worker.wait()
        self._remove_queue(self.app, self.queue)
        cleaning.delete_mailbox(self.app, self.hostname)
        cleaning.forget_results(self.app, [outcome.task_id for outcome in self.outcomes])
        self._rows().filter(pk__in=[letter.pk for letter in self._letters().values()]).delete()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self) -> list[Outcome]:
        """Try every case that the pool knows; return what became of them."""
        for outcome in self.outcomes:
            self._send(outcome)
        self._look(lambda letter: letter is not None, self._note_death)
        Path(self.folder, "cured").touch()
        self._wait_until(self._put_all_back, "the broker takes the messages back")
        self._look(self._has_ended, self._note_return)
        return self.outcomes

    def _send(self, outcome: Outcome) -> None:
        case, task_id = outcome.case, outcome.task_id
        headers = {
            "lang": "py", "task": case.task_name, "id": task_id, "root_id": task_id, "retries": 0,
            "timelimit": [None, None], "argsrepr": "", "kwargsrepr": "", "origin": "taskkit probe",
            "eta": None, "expires": None, "ignore_result": False, "taskkit_probe": self.run_id,
        }  # fmt: skip
        changed = case.options.get("headers", {})
        body = (case.body or b'[["%s"], {}, {}]').replace(b"%s", task_id.encode())
        self._bodies[task_id] = body
        if case.revoke == "queued":
            self._wait_until(lambda: self._tell_revoked(task_id), "the probe's worker takes orders")
        with broker_connection(self.app) as connection, connection.Producer(auto_declare=False) as producer:
            producer.publish(
                body,
                exchange="",
                routing_key=self.queue,
                headers={} if changed is None else {**headers, **changed},
                correlation_id=task_id,
                content_type=case.content_type,
                content_encoding="utf-8",
                serializer=None,
            )
        if case.revoke == "running":
            self._wait_until(lambda: self._is_running(task_id), f"{case.name} runs")
            self._revoke(task_id, terminate=True, signal="KILL")

    def _tell_revoked(self, task_id: str) -> bool:
        return bool(self._revoke(task_id, reply=True, timeout=10))

    def _revoke(self, task_id: str, **options: Any) -> Any:
        with broker_connection(self.app) as connection:
            return self.app.control.revoke(task_id, destination=[self.hostname], connection=connection, **options)

    def _is_running(self, task_id: str) -> bool:
        with broker_connection(self.app) as connection:
            inspect = self.app.control.inspect(destination=[self.hostname], timeout=10, connection=connection)
            active = inspect.active() or {}
        return any(task["id"] == task_id for tasks in active.values() for task in tasks)

    def _rows(self) -> Any:
        return DeadLetter.objects.using(router.db_for_write(DeadLetter))

    def _letters(self) -> dict[str, DeadLetter]:
        """Return the dead letters by the ids that were sent; where a message bore none, its body tells whose it is."""
        ids = [outcome.task_id for outcome in self.outcomes]
        letters = list(self._rows().filter(Q(task_id__in=ids) | Q(queue=self.queue)))
        by_id = {letter.task_id: letter for letter in letters}
        by_body = {bytes(letter.body): letter for letter in letters if letter.task_id not in ids}
        found = {task_id: by_id.get(task_id) or by_body.get(self._bodies.get(task_id, b"?")) for task_id in ids}
        return {task_id: letter for task_id, letter in found.items() if letter}

    def _look(
        self,
        done: Callable[[DeadLetter | None], bool],
        note: Callable[[Outcome, DeadLetter], None],
    ) -> None:
        """Wait until all are done, or none has been for as long as one may take."""
        waiting = list(self.outcomes)
        last = drained = time.monotonic()
        while waiting and time.monotonic() - last < self.timeout and self._worker.poll() is None:
            letters = self._letters()
            for outcome in list(waiting):
                letter = letters.get(outcome.task_id)
                if done(letter):
                    waiting.remove(outcome)
                    last = time.monotonic()
                    if letter is not None:
                        note(outcome, letter)
            if time.monotonic() - drained > SPOOL_PAUSE:
                spool.drain(self.app, limit=100)
                drained = time.monotonic()
            time.sleep(0.2)

    def _put_all_back(self) -> bool:
        """Requeue all dead letters, in one go; True if the broker could be reached for each."""
        report = requeue(self._letters().values(), by="taskkit probe", even_if_ran=True, app=self.app)
        return not report.outage

    def _has_ended(self, letter: DeadLetter | None) -> bool:
        if letter is None:
            return True
        curable = letter.reason == Reason.TIME_LIMIT and letter.requeue_count
        if letter.status == Status.DEAD and curable:  # a busy machine takes longer than the limit also once it is cured
            requeue(letter, by="taskkit probe", app=self.app)
            return False
        return letter.status != Status.REQUEUED

    def _note_death(self, outcome: Outcome, letter: DeadLetter) -> None:
        outcome.found = letter.reason
        sent = self._bodies[outcome.task_id]
        if outcome.case.resent:
            outcome.intact = letter.envelope.payload()[:2] == tuple(json.loads(sent)[:2])
        else:
            outcome.intact = bytes(letter.body) == sent

    def _note_return(self, outcome: Outcome, letter: DeadLetter) -> None:
        kinds = [event.kind for event in letter.events.all()]
        if letter.status == Status.RECOVERED:
            outcome.back = "ran"
        elif kinds.count("died") > 1:
            outcome.back = "sent"

    def _wait_until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + self.timeout
        while not condition():
            if self._worker.poll() is not None:
                raise ProbeError(f"The probe's worker ended with {self._worker.returncode}:\n{self.log_tail(10)}")
            if time.monotonic() > deadline:
                raise ProbeError(f"Not within {self.timeout:.0f} s: {what}.\n{self.log_tail()}")
            time.sleep(0.1)

    def log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def import_path(app: Celery) -> str:
    """Return what ``celery -A`` takes for ``app``.

    Raises:
        ProbeError: no module has it by a name of its own.
    """
    for name, module in list(sys.modules.items()):
        for attribute, value in _plain_attributes(module):
            if value is app and not name.startswith("celery."):
                return f"{name}:{attribute}"
    raise ProbeError(f"Can't tell which module holds the Celery app {app.main!r}; name it with --app, as in celery -A.")


def _plain_attributes(module: Any) -> Iterator[tuple[str, Any]]:
    with suppress(Exception):
        yield from list(vars(module).items())


def as_json(outcomes: list[Outcome]) -> str:
    """Return the outcomes for a program to read."""
    rows = [
        {
            "case": outcome.case.name,
            "expected": outcome.case.reason.value,
            "found": outcome.found or None,
            "captured": outcome.captured,
            "back": outcome.back or None,
            "passed": outcome.passed,
        }
        for outcome in outcomes
    ]
    return json.dumps(rows, indent=2)
