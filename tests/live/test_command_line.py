"""The command line as a person uses it: a process of its own, a real broker and a real worker."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta

import harness
import pytest
from django.db import transaction
from worker_processes import HERE, worker_environment

from django_taskkit.models import DeadLetter
from tests.letters import dead_letter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def environment(broker, django_env):
    return {**worker_environment(broker.settings, django_env), "PYTHONIOENCODING": "ascii"}


@pytest.fixture
def taskkit(environment):
    def taskkit(*arguments):
        command = [sys.executable, HERE / "letters_manage.py", "taskkit", *arguments]
        return subprocess.run(
            command, cwd=harness.ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    return taskkit


def test_what_died_is_listed_requeued_and_purged(broker, producer, start_worker, django_env, taskkit, tmp_path):
    start_worker("letters_app", broker, env=django_env, pool="threads", concurrency=2)
    for _ in range(3):
        producer.send_task("letters.plain", (str(tmp_path),), {"söt": "任務"})
    harness.wait_until(lambda: DeadLetter.objects.filter(status="dead").count() == 3, 60, "three are dead")

    listed = taskkit("list", "--exception", "LookupError")
    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == 4
    task_id = listed.stdout.splitlines()[1].split()[0]
    shown = taskkit("show", task_id)
    assert shown.returncode == 0, shown.stderr
    assert "\\u4efb\\u52d9" in shown.stdout  # a terminal that knows no Chinese

    (tmp_path / "cured").touch()
    requeued = taskkit("requeue", "--all", "--yes", "--json")
    assert requeued.returncode == 0, requeued.stderr
    assert json.loads(requeued.stdout) == {"requeued": 3, "refused": 0, "not_tried": 0}
    harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").count() == 3, 60, "three are recovered")

    purged = taskkit("purge", "--older-than", "0s")
    assert (purged.returncode, purged.stdout) == (0, "Purged 3 dead letters.\n")
    assert not DeadLetter.objects.exists()


def test_a_list_whose_reader_goes_away_ends_without_a_word(environment):
    with transaction.atomic():  # or each is a commit of its own
        for number in range(2_000):
            dead_letter(exception_message="x" * 200, ago=timedelta(seconds=number))

    process = subprocess.Popen(
        [sys.executable, HERE / "letters_manage.py", "taskkit", "list", "--all"],
        cwd=harness.ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline().startswith(b"TASK ID")
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()

    assert (process.wait(60), said) == (0, b"")
