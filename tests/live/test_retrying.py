"""Retrying with real workers: what an error asks for, verdicts, deadlines, and a queue of its own for retries."""

from __future__ import annotations

import math
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import harness
import pytest

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter, OutboxMessage

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

BROKERS = ("redis", "rabbitmq", "rabbitmq-quorum")
POOLS = ("prefork", "threads", "gevent")
EVERYWHERE = [pytest.param(broker, pool, id=f"{broker}-{pool}") for broker in BROKERS for pool in POOLS]

ASKED = 3
"""Seconds that the server asks for."""


class BusyServer(ThreadingHTTPServer):
    """Answers each address twice with 429 and a Retry-After, and then with 200; knows when it was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BusyHandler)
        self.asked_at = {}
        self.not_before = {}

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class BusyHandler(BaseHTTPRequestHandler):
    def do_GET(self):
        asked = self.server.asked_at.setdefault(self.path, [])
        asked.append(time.time())
        if len(asked) > 2:
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
            return
        until = asked[-1] + ASKED
        if self.path == "/date":
            until = math.ceil(until)  # a date in a header has no fractions
            value = formatdate(until, usegmt=True)
        else:
            value = str(ASKED)
        self.server.not_before.setdefault(self.path, []).append(until)
        self.send_response(429)
        self.send_header("Retry-After", value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = BusyServer()
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "runs"
    path.mkdir()
    return path


def runs(folder, result):
    """Retries and worker of each run of a task."""
    path = Path(folder, result.id)
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def retries(folder, result):
    return [int(count) for count, _ in runs(folder, result)]


@pytest.mark.parametrize(("broker", "pool"), EVERYWHERE, indirect=["broker"])
def test_a_message_ends_as_its_task_and_its_errors_say(
    broker, producer, pool, start_worker, django_env, folder, server
):
    if pool == "gevent":
        pytest.importorskip("gevent")
    start_worker("retrying_app", broker, pool=pool, concurrency=8, env=django_env, queues=[broker.queue])

    def send(name, *args, **options):
        return producer.send_task(f"retrying.{name}", (str(folder), *args), **options)

    by_seconds, by_date = (send("fetch", server.url(path)) for path in ("seconds", "date"))
    stolen, early, patient = send("stolen"), send("early"), send("patient")
    late = send("late", expires=120)

    # The server decides when it is asked again: the task's own options say after 1 s, and then 2 s.
    assert by_seconds.get(timeout=60) == by_date.get(timeout=60) == "ok"
    for path in ("/seconds", "/date"):
        asked, not_before = server.asked_at[path], server.not_before[path]
        assert len(asked) == 3
        assert all(again >= until for again, until in zip(asked[1:], not_before, strict=True))

    # What is put off uses up no retry: three times, and then the one that there is.
    assert early.get(timeout=60) == "done"
    assert retries(folder, early) == [0, 0, 0, 0, 1]

    harness.wait_until(lambda: DeadLetter.objects.count() == 3, 60, "three are dead")
    letters = {letter.task_id: letter for letter in DeadLetter.objects.all()}
    assert {task_id: letter.reason for task_id, letter in letters.items()} == {
        stolen.id: "permanent",
        patient.id: "deadline",
        late.id: "deadline",
    }
    assert letters[stolen.id].exception_message == "the card was stolen"
    assert retries(folder, stolen) == [0]

    # A deadline of 4 s and a second between two runs: more than one retry, and none after it.
    assert 2 <= len(retries(folder, patient)) <= 5
    assert letters[patient.id].attempts == len(retries(folder, patient))

    # A retry in 300 s would find the message expired: it is dead at once, with its error, and not revoked in silence.
    assert retries(folder, late) == [0]
    assert late.state == "FAILURE"
    assert letters[late.id].exception_message == "away"

    assert not OutboxMessage.objects.exists()
    harness.wait_until(lambda: broker.message_count() == 0, 10, "nothing is left")


@pytest.mark.parametrize("broker", BROKERS, indirect=True)
def test_retries_go_through_their_own_queue_and_a_dead_letter_goes_home(
    broker, producer, start_worker, django_env, folder
):
    lane = broker.queue_named("lane")
    home_worker, lane_worker = (
        start_worker("retrying_app", broker, pool="threads", concurrency=2, env=django_env, queues=[queue])
        for queue in (broker.queue, lane)
    )
    at_home, in_lane = (f"{worker.name}@localhost" for worker in (home_worker, lane_worker))

    result = producer.send_task("retrying.lane", (str(folder),))
    letter = harness.wait_until(DeadLetter.objects.first, 60, "it is dead")

    assert runs(folder, result) == [["0", at_home], ["1", in_lane], ["2", in_lane]]
    assert (letter.reason, letter.queue) == ("retries_exhausted", broker.queue)

    lane_worker.stop()
    report = requeue(letter)

    assert report.requeued == 1
    harness.wait_until(lambda: result.state == "SUCCESS", 60, "it has run again")
    assert result.result == "done"
    assert runs(folder, result)[3:] == [["0", at_home]]
    harness.wait_until(lambda: DeadLetter.objects.get().status == "recovered", 30, "it has recovered")
