"""Celery dies as `contract_table` says; a release that changes it fails here, with both rows side by side."""

from __future__ import annotations

import contextlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import celery
import contract_table
import harness
import pytest
from contract_table import Case, Outcome

HOOKS = ("on_failure", "task_failure")


class Laboratory:
    """One worker running the contract app, and what its hooks wrote down."""

    def __init__(self, broker: harness.RedisBroker, worker: harness.Worker, events: Path) -> None:
        self.broker = broker
        self.worker = worker
        self.events = events
        self.app = broker.app()

    def run(self, case: Case) -> Outcome:
        task_id = str(uuid.uuid4())
        log_before = len(self.worker.log())
        self._send(case, task_id)
        harness.wait_until(
            lambda: re.search(case.done_when_log_matches, self.worker.log()[log_before:]),
            timeout=30,
            message=f"{case.done_when_log_matches!r} in the worker's log",
        )
        if case.worker_survives:
            self._wait_until_it_moved_on()
        else:
            self.worker.wait(30)
        _, row = contract_table.expected(case, celery.__version__)
        with contextlib.suppress(AssertionError):  # the caller compares, and shows both
            harness.wait_until(lambda: self._outcome(task_id) == row, timeout=5)
        return self._outcome(task_id)

    def _send(self, case: Case, task_id: str) -> None:
        task = case.task or f"contract.{case.name}"
        if case.raw is not None:
            headers = {"id": task_id, "task": "contract.nothing", "lang": "py"}
            self.broker.publish(**case.raw, headers=headers, correlation_id=task_id)
            return
        if case.revoked_first:
            harness.wait_until(
                lambda: self.app.control.revoke(task_id, reply=True, timeout=2),
                message="the worker knows that the task is revoked",
            )
        self.app.send_task(task, task_id=task_id, **case.send)

    def _wait_until_it_moved_on(self) -> None:
        """The pool has one process: once it has run this, everything before it is over."""
        marker = self.app.send_task("contract.nothing", ignore_result=True)
        self.worker.wait_for_log(f"contract.nothing[{marker.id}] succeeded")

    def _outcome(self, task_id: str) -> Outcome:
        lines = [json.loads(line) for line in self.events.read_text().splitlines()]
        mine = [line for line in lines if line["task_id"] == task_id]
        calls = {
            hook: tuple(
                sorted(
                    line["process"] + ("" if line["request"] else ", empty") for line in mine if line["event"] == hook
                )
            )
            for hook in HOOKS
        }
        others = sorted(line["event"] for line in mine if line["event"] not in HOOKS)
        held = self.broker.message_count() + self.broker.unacknowledged_count()
        return Outcome(
            **calls,
            other_signals=tuple(others),
            state=self.app.AsyncResult(task_id).state,
            message="in the queue" if held else "gone",
        )


@pytest.fixture(scope="module")
def new_laboratory(tmp_path_factory) -> Iterator[Callable[..., Laboratory]]:
    folder = tmp_path_factory.mktemp("contract")
    with harness.open_broker("redis") as broker, harness.workers(folder) as start_worker:

        def build(broker: harness.RedisBroker, **settings) -> Laboratory:
            events = folder / f"{uuid.uuid4().hex}.jsonl"
            events.touch()
            worker = start_worker(
                "contract_app",
                broker,
                settings={"worker_prefetch_multiplier": 1, "worker_lost_wait": 1.0, **settings},
                env={"TASKKIT_TEST_EVENTS": str(events), "DJANGO_SETTINGS_MODULE": None},
            )
            return Laboratory(broker, worker, events)

        build.broker = broker
        yield build


@pytest.fixture(scope="module")
def shared_laboratory(new_laboratory) -> Laboratory:
    return new_laboratory(new_laboratory.broker)


@pytest.fixture
def laboratory(case: Case, request, new_laboratory) -> Iterator[Laboratory]:
    """The module's worker; a case that needs other settings, or ends its worker, gets one of its own."""
    if case.own_worker is None:
        yield request.getfixturevalue("shared_laboratory")
        return
    settings = {
        name: value.format(free_port=harness.free_port()) if isinstance(value, str) else value
        for name, value in case.own_worker.items()
    }
    laboratory = new_laboratory(request.getfixturevalue("broker"), **settings)
    yield laboratory
    laboratory.worker.stop()


@pytest.mark.parametrize("case", contract_table.CASES, ids=lambda case: case.name)
def test_celery_does_what_the_table_says_when(case: Case, laboratory: Laboratory):
    minor, row = contract_table.expected(case, celery.__version__)

    seen = laboratory.run(case)

    if path := os.environ.get("TASKKIT_TEST_MEASURED"):
        with open(path, "a") as measured:
            measured.write(f"{case.name}\t{celery.__version__}\t{json.dumps(asdict(seen))}\n")
    assert asdict(seen) == asdict(row), f"{case.title}: Celery {celery.__version__} left its row for {minor}"
    assert laboratory.worker.alive == case.worker_survives


def test_the_published_page_is_this_table():
    page = harness.ROOT / "docs" / "celery-contract.md"

    assert page.read_text() == contract_table.markdown(), f"run: python tests/live/contract_table.py docs/{page.name}"


def test_a_celery_that_nobody_has_measured_is_held_to_the_newest_row():
    case = contract_table.CASES[0]

    assert contract_table.expected(case, "5.9.1") == ("5.7", case.outcomes["5.7"])
    assert contract_table.expected(case, "5.5.3") == ("5.5", case.outcomes["5.5"])
