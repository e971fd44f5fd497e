"""Runs of one task at once: nothing of one is seen by another, and nothing stays on the object that they share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.base_tasks.concurrent_runs import AT_ONCE, KINDS, ROUNDS, Many, expected, state_of, with_threads

pytestmark = pytest.mark.django_db

HERE = Path(__file__).resolve().parent


def test_every_run_has_its_own_fate_whatever_runs_beside_it(station):
    many = Many(station.app)
    many.task.dead_letter = False  # threads have database connections of their own, outside of this test's transaction

    outcomes = list(many.all(with_threads))

    assert len(outcomes) == AT_ONCE * ROUNDS
    assert {kind for kind, _, _, _ in outcomes} == set(KINDS)
    assert [outcome for _, _, outcome, _ in outcomes] == [expected(kind, number) for kind, number, _, _ in outcomes]


def test_a_run_that_succeeds_returns_its_own_result(station):
    many = Many(station.app)
    many.task.dead_letter = False

    for kind, number, _, result in many.all(with_threads):
        if kind == "succeeds":
            assert result == number


def test_nothing_of_a_run_is_kept_on_the_task(station):
    many = Many(station.app)
    many.task.dead_letter = False
    body, before = many.task._body, state_of(many.task)  # it is found once, whatever the run

    list(many.all(with_threads))

    after = state_of(many.task)
    assert many.task._body is body
    assert {name for name in {*before, *after} if before.get(name) is not after.get(name)} == set()


def test_the_messages_of_the_retries_are_those_of_their_runs(station):
    many = Many(station.app)
    many.task.dead_letter = False

    ran = [(kind, number, outcome) for kind, number, outcome, _ in many.all(with_threads)]

    sent = []
    while (message := station.take()) is not None:
        kind, number = message.payload[0]
        sent.append((kind, number, message.headers["retries"]))
    retried = [(kind, number, number % 3 + (kind != "snooze")) for kind, number, (state, _) in ran if state == "RETRY"]
    assert sorted(sent) == sorted(retried)


def test_greenlets_share_nothing_either():
    pytest.importorskip("gevent")
    root = HERE.parent.parent
    answer = subprocess.run(
        [sys.executable, "-m", "tests.base_tasks.concurrent_runs"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "DJANGO_SETTINGS_MODULE": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout.strip().splitlines()[-1])
    assert said == {"runs": AT_ONCE * ROUNDS, "wrong": [], "changed": [], "body": True}
