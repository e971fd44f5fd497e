"""Operators who get in each other's way, and who die at the worst moment, as processes on a real database and broker.

Never lost, at most one publish for a claim unless somebody is killed (then at least one), and final states right. On
the database that ``TASKKIT_TEST_DATABASE`` names.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import harness
import pytest
from django.utils import timezone
from kombu.utils.json import dumps
from worker_processes import worker_environment

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter, DeadLetterEvent

pytestmark = pytest.mark.django_db(transaction=True)

POINTS = ("before the publish", "before the commit", "after the commit")
SERVERS = ("redis", "rabbitmq")


class Operator:
    """A process that requeues when it is told to."""

    def __init__(self, env, *arguments):
        program = str(Path(__file__).with_name("races_app.py"))
        self.process = subprocess.Popen(
            [sys.executable, program, *arguments],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self):
        assert self.process.stdout.readline() == "ready\n"

    def go(self, folder=""):
        self.process.stdin.write(f"{folder}\n")
        self.process.stdin.flush()

    def report(self):
        output, _ = self.process.communicate(timeout=120)
        assert self.process.returncode == 0
        return json.loads(output)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def operators(broker, django_env):
    """``operators(number, how, point)``: so many processes, ready to start at once."""
    started = []

    def start(number, *arguments):
        found = [Operator(worker_environment(broker.settings, django_env), *arguments) for _ in range(number)]
        started.extend(found)
        for operator in found:
            operator.wait_until_ready()
        return found

    yield start
    for operator in started:
        operator.end()


@pytest.fixture
def letters(broker, producer, tmp_path):
    """``letters(number)``: so many dead letters of this test's queue."""

    def make(number):
        rows = []
        for index in range(number):
            message = producer.amqp.as_task_v2(f"id-{index:03}", "races.run", (str(tmp_path), index), {})
            rows.append(
                DeadLetter(
                    task_id=f"id-{index:03}",
                    task_name="races.run",
                    reason="exception",
                    died_at=timezone.now(),
                    queue=broker.queue,
                    body=dumps(message.body).encode(),
                    content_type="application/json",
                    content_encoding="utf-8",
                    headers=message.headers,
                    properties={**message.properties, "delivery_mode": 2, "priority": 0},
                )
            )
        DeadLetter.objects.bulk_create(rows)

    return make


def published(broker):
    """How often each task id waits in the queue; the messages are taken out."""
    found = Counter()
    with broker.connection() as connection:
        queue = broker.app().amqp.queues.select_add(broker.queue)(connection.default_channel)
        while message := queue.get(no_ack=True):
            found[message.headers["id"]] += 1
    return found


def statuses():
    return Counter(DeadLetter.objects.values_list("status", flat=True))


def events(kind):
    return Counter(DeadLetterEvent.objects.filter(kind=kind).values_list("dead_letter__task_id", flat=True))


@pytest.mark.parametrize("broker", SERVERS, indirect=True)
def test_two_operators_who_requeue_the_same_letters_send_each_once(broker, letters, operators):
    letters(200)
    both = operators(2, "all at once")

    for operator in both:
        operator.go()
    reports = [operator.report() for operator in both]

    assert sum(report["requeued"] for report in reports) == 200
    assert sum(report["not_tried"] for report in reports) == 0
    assert {reason for report in reports for reason in report["reasons"]} <= {"it is requeued by now"}
    sent = published(broker)
    assert (len(sent), set(sent.values())) == (200, {1})
    assert statuses() == {"requeued": 200}
    assert set(DeadLetter.objects.values_list("requeue_count", flat=True)) == {1}
    assert set(events("requeued").values()) == {1}


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_a_double_click_sends_a_message_once(broker, letters, operators):
    letters(30)
    both = operators(2, "one by one")

    for operator in both:
        operator.go()
    reports = [operator.report() for operator in both]

    assert sum(report["requeued"] for report in reports) == 30
    assert sum(report["refused"] for report in reports) == 30
    sent = published(broker)
    assert (len(sent), set(sent.values())) == (30, {1})


@pytest.mark.parametrize(
    ("broker", "point"),
    [*(("redis", point) for point in POINTS), ("rabbitmq", "before the commit")],
    indirect=["broker"],
)
def test_an_operator_who_is_killed_loses_nothing(broker, letters, operators, point):
    """In the second chunk of 50: what was sent before stays sent, and the rest can be requeued by somebody else."""
    letters(120)
    [operator] = operators(1, "all at once", point)

    operator.go()

    assert operator.process.wait(120) == -signal.SIGKILL
    was_committed = point == "after the commit"
    harness.wait_until(
        lambda: statuses() == ({"requeued": 100, "dead": 20} if was_committed else {"requeued": 50, "dead": 70}),
        30,
        "the database took back what was not committed",
    )
    assert events("requeued").total() == (100 if was_committed else 50)

    report = requeue(DeadLetter.objects.filter(status="dead"), by="another")

    assert report.requeued == (20 if was_committed else 70)
    assert statuses() == {"requeued": 120}
    assert set(DeadLetter.objects.values_list("requeue_count", flat=True)) == {1}
    twice = {f"id-{number:03}" for number in range(50, 100)} if point == "before the commit" else set()
    sent = published(broker)
    assert len(sent) == 120
    assert {task_id for task_id, times in sent.items() if times == 2} == twice
    assert max(sent.values()) == (2 if twice else 1)


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_what_an_operator_who_was_killed_had_sent_recovers(
    broker, letters, operators, start_worker, django_env, tmp_path
):
    """The task runs and succeeds although its row never said that it was requeued."""
    letters(60)
    Path(tmp_path, "cured").touch()
    [operator] = operators(1, "all at once", "before the commit")
    operator.go()
    assert operator.process.wait(120) == -signal.SIGKILL

    start_worker("races_app", broker, pool="solo", env=django_env)

    harness.wait_until(lambda: statuses() == {"recovered": 60}, 60, "all are recovered")
    assert set(Counter(Path(tmp_path, "runs").read_text().split()).values()) == {1}


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_requeues_while_the_tasks_die_again_run_each_message_once(
    broker, letters, operators, start_worker, django_env, tmp_path
):
    letters(10)
    start_worker("races_app", broker, pool="prefork", concurrency=2, env=django_env)
    both = operators(2, "again and again")

    for operator in both:
        operator.go(tmp_path)
    harness.wait_until(
        lambda: min(DeadLetter.objects.values_list("requeue_count", flat=True)) >= 2, 120, "each has died twice"
    )
    Path(tmp_path, "cured").touch()
    harness.wait_until(lambda: statuses() == {"recovered": 10}, 60, "all are recovered")
    Path(tmp_path, "enough").touch()
    reports = [operator.report() for operator in both]

    runs = Counter(f"id-{int(number):03}" for number in Path(tmp_path, "runs").read_text().split())
    counts = dict(DeadLetter.objects.values_list("task_id", "requeue_count"))
    assert runs == counts == events("requeued")
    assert sum(report["requeued"] for report in reports) == runs.total()
    assert set(events("recovered").values()) == {1}
    # A task may die before its requeue is committed; the death waits for that, and is counted.
    assert {task_id: times - 1 for task_id, times in counts.items()} == events("died")
