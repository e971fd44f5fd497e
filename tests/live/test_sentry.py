"""A real worker tells a Sentry of each death once, however the task died, and of nothing else."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from waiting import wait_until

from django_taskkit.models import DeadLetter

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]


class Sentry(ThreadingHTTPServer):
    """Takes envelopes on loopback as Sentry does, and keeps the events in them."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taking)
        self.events: list[dict[str, Any]] = []

    @property
    def dsn(self) -> str:
        return f"http://key@127.0.0.1:{self.server_address[1]}/1"

    def about(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("tags", {}).get("taskkit.task") == name]


class Taking(BaseHTTPRequestHandler):
    server: Sentry

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        lines = body.split(b"\n")
        for head, payload in zip(lines[1::2], lines[2::2], strict=False):
            if head and json.loads(head).get("type") == "event":
                self.server.events.append(json.loads(payload))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    server = Sentry()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


ENDINGS = {
    "sentry.retries": ("retries_exhausted", "ConnectionError"),
    "sentry.plain": ("exception", "LookupError"),
    "sentry.killed": ("worker_lost", "WorkerLostError"),
    "sentry.slow": ("time_limit", "TimeLimitExceeded"),
    "sentry.rejects": ("rejected", "Reject"),
    "sentry.unknown": ("unregistered", None),
}


def test_each_death_arrives_once_with_its_link_and_nothing_else_does(
    sentry, broker, producer, start_worker, django_env
):
    env = {**django_env, "DJANGO_SETTINGS_MODULE": "sentry_settings", "TASKKIT_TEST_DSN": sentry.dsn}
    worker = start_worker("sentry_app", broker, concurrency=2, env=env)
    for name in (*ENDINGS, "sentry.recovers"):
        call = {"args": (7,), "kwargs": {"password": "hunter2"}} if name == "sentry.retries" else {}
        producer.send_task(name, headers={"taskkit_request_id": f"req-{name}"}, **call)
    with broker.connection() as connection:
        undecodable = connection.SimpleQueue(broker.queue)
        undecodable.put(b"{not json", content_type="application/json", content_encoding="utf-8")

    wait_until(lambda: DeadLetter.objects.count() == len(ENDINGS) + 1, 90, "all are dead letters")
    wait_until(
        lambda: len(sentry.events) > len(ENDINGS),
        20,
        f"all have arrived, not only {[e.get('tags') for e in sentry.events]}",
    )
    done = producer.send_task("sentry.done")
    wait_until(lambda: f"sentry.done[{done.id}] succeeded" in worker.log(), 60, "what comes after them has run")
    worker.stop()  # which sends what is left

    letters = {letter.task_name: letter for letter in DeadLetter.objects.all()}
    for name, (reason, kind) in ENDINGS.items():
        (event,) = sentry.about(name)
        tags, letter = event["tags"], letters[name]
        assert letter.reason == reason
        assert tags["taskkit.reason"] == reason
        assert tags["taskkit.dead_letter"] == str(letter.pk)
        assert tags["taskkit.link"] == f"https://shop.example/admin/django_taskkit/deadletter/{letter.pk}/change/"
        assert tags["taskkit.release"] == "1.4.2"
        assert tags["taskkit.request_id"] == f"req-{name}"
        if kind:
            assert event["exception"]["values"][-1]["type"] == kind
    assert sentry.about("sentry.retries")[0]["tags"]["taskkit.attempt"] == "2"
    assert "hunter2" not in json.dumps(sentry.events)

    others = [event for event in sentry.events if event.get("tags", {}).get("taskkit.task") not in ENDINGS]
    assert [event.get("tags", {}).get("taskkit.reason") for event in others] == ["undecodable"], [
        (event.get("logger"), event.get("logentry"), event.get("exception", {}).get("values", [{}])[-1].get("value"))
        for event in others
    ]
