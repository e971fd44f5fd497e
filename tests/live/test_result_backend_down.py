"""The result backend is down: what a task did is known all the same, and the worker goes on."""

from __future__ import annotations

import contextlib
import socket

import endings_app
import harness
import pytest

from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

KINDS = ("", "_late")
"""Acknowledged early, and late."""
FATES = {"fail": ("exception", False), "succeed": ("result_lost", True), "fail_once": ("result_lost", True)}
"""Tasks, with the reason of their death and whether a requeue would repeat what they did."""


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.fixture
def address(outage):
    """Where a Redis does not answer: connections are refused, or they are made and nothing follows."""
    if outage == "refuses":
        yield f"redis://127.0.0.1:{harness.free_port()}/0"
    else:
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listener:
            yield f"redis://127.0.0.1:{listener.getsockname()[1]}/0"


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
@pytest.mark.parametrize(
    ("pool", "outage"),
    [
        ("prefork", "refuses"),
        ("threads", "refuses"),
        ("prefork", "is silent"),
        soak("threads", "is silent"),
        soak("gevent", "refuses"),
        soak("solo", "refuses"),
    ],
)
def test_a_worker_whose_result_backend_is_down_loses_no_task_and_no_slot(
    broker, producer, start_worker, django_env, pool, address, tmp_path
):
    folder = str(tmp_path)
    quickly = {"retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}}
    worker = start_worker(
        "endings_app",
        broker,
        pool=pool,
        concurrency=1,
        env=django_env,
        settings={
            "result_backend": address,
            "result_backend_transport_options": quickly,
            "redis_socket_timeout": 0.5,
            "redis_socket_connect_timeout": 0.5,
            "worker_prefetch_multiplier": 1,
        },
    )
    sender = broker.app(result_backend="disabled://")
    sent = {}
    for kind in KINDS:
        for task in FATES:
            sent[task + kind] = sender.send_task(f"endings.{task}{kind}", (folder, task + kind)).id
    for kind in KINDS:
        sender.send_task(f"endings.succeed{kind}", (folder, f"after{kind}"), ignore_result=True)

    for kind in KINDS:
        harness.wait_until(lambda kind=kind: endings_app.count(folder, f"after{kind}", "ended"), 90, f"after{kind}")
    harness.wait_until(lambda: DeadLetter.objects.count() == len(sent), 60, "all are in the table")
    harness.wait_until(lambda: broker.message_count() + broker.unacknowledged_count() == 0, 30, "nothing is left")

    rows = {row.task_id: row for row in DeadLetter.objects.all()}
    for name, task_id in sent.items():
        row = rows[task_id]
        assert (row.reason, row.body_ran) == FATES[name.removesuffix("_late")], row.traceback
    # The retry went on, although the note of it could not be stored.
    assert {name: endings_app.count(folder, name) for name in sent} == {
        name: 2 if "once" in name else 1 for name in sent
    }
    assert worker.alive
