"""Redrives with real workers: a canary, the same failure again, runners that are killed, runners that compete."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import harness
import pytest
import redrive_app
from django.utils import timezone
from worker_processes import worker_environment

from django_taskkit.dlq.redrive.runner import Runner
from django_taskkit.models import DeadLetter, Redrive, RedriveMember

pytestmark = pytest.mark.django_db(transaction=True)

COUNT, SOME = 200, 100


@pytest.fixture
def worker(broker, start_worker, django_env):
    return start_worker("redrive_app", broker, concurrency=2, env=django_env)


@pytest.fixture
def die(worker, producer, tmp_path):
    """Let so many tasks die in the worker, which goes on running."""

    def die(count):
        for number in range(count):
            producer.send_task("redrive.pay", (str(tmp_path), number), ignore_result=True)
        harness.wait_until(lambda: DeadLetter.objects.filter(status="dead").count() == count, 120, "all are dead")

    return die


@pytest.fixture
def letters(worker, broker, tmp_path):
    """Letters as if they had died in the worker, which takes longer."""

    def row(number):
        return DeadLetter(
            task_id=f"{broker.queue}-{number}",
            task_name="redrive.pay",
            reason="exception",
            queue=broker.queue,
            died_at=timezone.now(),
            body=json.dumps([[str(tmp_path), number], {}, {}]).encode(),
            content_type="application/json",
            content_encoding="utf-8",
            headers={"id": f"{broker.queue}-{number}", "task": "redrive.pay", "ignore_result": True},
        )

    return lambda count: DeadLetter.objects.bulk_create(row(number) for number in range(count))


@pytest.fixture
def manage(broker, django_env):
    """Start ``manage.py taskkit redrive`` in a process of its own."""
    started = []

    def manage(*arguments):
        command = [sys.executable, redrive_app.__file__, "taskkit", "redrive", *arguments]
        process = subprocess.Popen(
            command,
            env=worker_environment(broker.settings, django_env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield manage
    for process in started:
        process.kill()
        process.communicate()


def cure(folder):
    Path(folder, "cured").touch()


def runs(folder):
    path = Path(folder, "runs")
    return Counter(map(int, path.read_text().split())) if path.exists() else Counter()


def facts(process):
    out, err = process.communicate(timeout=120)
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines, err
    return lines[-1]


def test_200_letters_that_are_cured_recover_behind_a_canary(die, manage, tmp_path):
    die(COUNT)
    cure(tmp_path)

    made = manage("--all", "--yes", "--canary", "--json")
    facts(made)
    said = facts(manage("--watch", str(Redrive.objects.get().pk), "--json"))

    assert made.returncode == 0
    assert (said["state"], said["sent"], said["refused"]) == ("finished", COUNT, 0)
    assert (said["recovered"], said["failed_again"], said["running"]) == (COUNT, 0, 0)
    assert runs(tmp_path) == Counter(range(COUNT))
    assert set(DeadLetter.objects.values_list("status", flat=True)) == {"recovered"}


def test_it_stops_after_the_first_one_that_dies_of_the_same_failure(die, manage):
    die(10)
    process = manage("--all", "--yes", "--canary", "--json")
    said = facts(process)

    assert process.returncode == 1
    assert (said["state"], said["sent"], said["failed_again"]) == ("stopped", 1, 1)
    assert said["why"].startswith("1 of the 1 messages that were sent died of the same failure again: redrive.pay")
    assert DeadLetter.objects.filter(requeue_count=0).count() == 9


def test_when_its_runner_is_killed_another_goes_on_and_none_is_missing(letters, manage, producer, tmp_path):
    letters(SOME)
    cure(tmp_path)
    process = manage("--all", "--yes", "--rate", "40", "--json")
    harness.wait_until(lambda: Redrive.objects.filter(sent__gt=10).exists(), 60, "some are sent", interval=0.01)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    made = Redrive.objects.get()
    assert (made.state, made.sent < SOME) == ("running", True)

    Redrive.objects.update(rate=None)
    # As if half a minute had passed.
    other = Runner(made.pk, producer, "other", ask=False, clock=lambda: timezone.now() + timedelta(minutes=1))
    while other.step().ours:
        pass
    harness.wait_until(lambda: not DeadLetter.objects.exclude(status="recovered").exists(), 60, "all have recovered")
    other.outcomes.settle_for(10)

    made.refresh_from_db()
    assert (made.state, made.sent, made.refused, made.recovered) == ("finished", SOME, 0, SOME)
    assert RedriveMember.objects.filter(state="recovered", generation=1).count() == SOME
    ran = runs(tmp_path)
    assert set(ran) == set(range(SOME))
    # Only a chunk that was published, and whose transaction was not committed, runs twice: never more than that.
    assert ran.total() <= SOME + 80


def test_two_runners_at_once_send_each_message_once(letters, manage, tmp_path):
    letters(SOME)
    cure(tmp_path)
    process = manage("--all", "--yes", "--detach", "--rate", "50", "--json")
    facts(process)
    pk = str(Redrive.objects.get().pk)

    both = [manage("--resume", pk, "--json") for _ in range(2)]
    ends = [facts(process) for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert [(said["state"], said["sent"], said["refused"]) for said in ends] == [("finished", SOME, 0)] * 2
    harness.wait_until(lambda: runs(tmp_path).total() >= SOME, 60, "all have run")
    harness.wait_until(lambda: not DeadLetter.objects.exclude(status="recovered").exists(), 60, "all have recovered")
    assert runs(tmp_path) == Counter(range(SOME))
