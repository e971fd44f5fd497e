"""One request id, from a web server's log through every task that follows, in the JSON lines of real processes."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from http.client import HTTPConnection

import pytest
from waiting import free_port, wait_until
from worker_processes import HERE, worker_environment

from django_taskkit.models import DeadLetter
from django_taskkit.outbox.relay import Relay

pytestmark = [pytest.mark.live, pytest.mark.django_db(transaction=True)]

SAID = {"said first", "said last", "said left", "said right", "said outbox", "said commit", "said dies"}


@pytest.fixture
def env(django_env):
    return {**django_env, "DJANGO_SETTINGS_MODULE": "logs_settings"}


@pytest.fixture
def web(broker, env, tmp_path):
    """A Django site under uvicorn; ``web(path, request_id)`` asks it, ``web.log`` is its log."""
    pytest.importorskip("uvicorn")
    port, log = free_port(), tmp_path / "web.log"
    command = [*(sys.executable, "-m", "uvicorn", "logs_web:application", f"--port={port}"), "--log-level=warning"]
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command, cwd=HERE, env=worker_environment(broker.settings, env), stdout=file, stderr=file
        )

    def ask(url, request_id):
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", f"/{url}", headers={"X-Request-ID": request_id})
            response = connection.getresponse()
            response.read()
            return response.status, response.getheader("X-Request-ID")

    def answers():
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            return ask("nothing-here", "of-nobody") == (404, "of-nobody")
        return False

    ask.log = log
    try:
        wait_until(answers, 60, "the site answers")
        yield ask
    finally:
        process.terminate()
        process.wait(30)


def lines_of(path):
    """The JSON objects in a log; what is printed, such as the worker's banner, is left out."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


@pytest.mark.parametrize("pool", ["prefork", "threads", pytest.param("gevent", marks=pytest.mark.soak)])
def test_one_request_id_goes_from_the_web_through_every_task(web, broker, producer, start_worker, env, tmp_path, pool):
    worker = start_worker("logs_app", broker, pool=pool, concurrency=2, env=env)

    assert web(f"start?folder={tmp_path}", "req-1") == (200, "req-1")
    Relay(producer).run_once()

    def messages(request_id="req-1"):
        return {line["message"] for line in lines_of(worker.log_path) if line.get("request_id") == request_id}

    wait_until(lambda: messages() >= {*SAID, "said both ['left', 'right']"}, 90, "all have run")
    wait_until(DeadLetter.objects.exists, 30, "one is dead")
    (tmp_path / "cured").touch()
    assert web("again", "req-of-the-admin") == (200, "req-of-the-admin")
    wait_until(lambda: worker.log().count('"said dies"') == 2, 60, "the dead one has run again")
    wait_until(lambda: sum("succeeded in" in line for line in messages()) >= 8, 30, "all have succeeded")

    lines = lines_of(worker.log_path)
    of_tasks = [line for line in lines if "task_id" in line]
    assert {line.get("request_id") for line in of_tasks} == {"req-1"}, [
        line for line in of_tasks if line.get("request_id") != "req-1"
    ]
    (first, second) = [line for line in lines if line["message"] == "said first"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert first["task_id"] == second["task_id"]
    assert (first["queue"], first["worker"]) == (broker.queue, f"{worker.name}@localhost")
    told = [line for line in lines if line["message"] == "told last"]
    assert [(line["logger"], line["task"]) for line in told] == [("shop.tasks", "logs.say")]
    last = next(line for line in lines if line["message"] == "said last")
    assert last["root_id"] == first["root_id"] == first["task_id"]
    assert last["parent_id"] == first["task_id"]
    for said in ("received", "succeeded in", "retry: ", "raised unexpected", "is a dead letter"):
        assert any(said in line["message"] for line in of_tasks), said
    assert "hunter2" not in worker.log()
    (by_the_view,) = [line for line in lines_of(web.log) if line["message"] == "said by the view"]
    assert by_the_view["request_id"] == "req-1"
    assert "task_id" not in by_the_view
    assert [line["request_id"] for line in lines_of(web.log) if line["message"].startswith("Not Found")] != []


@pytest.mark.parametrize("setup", ["kept", "not hijacked"])
def test_every_line_of_a_worker_is_json(broker, producer, start_worker, env, setup):
    if setup == "not hijacked":
        env["TASKKIT_TEST_NO_HIJACK"] = "1"
    worker = start_worker("logs_app", broker, concurrency=2, env=env)
    sent = {name: producer.send_task(name, args) for name, args in (("logs.say", ("x",)), ("logs.slow", ()))}
    wait_until(lambda: "Hard time limit" in worker.log() and "succeeded in" in worker.log(), 60, "both have ended")
    wait_until(DeadLetter.objects.exists, 30, "one is dead")
    worker.stop()

    lines = worker.log().splitlines()
    banner = next(number for number, line in enumerate(lines) if line.startswith("{"))
    assert [line for line in lines[banner:] if line and not line.startswith("{")] == [
        "worker: Warm shutdown (MainProcess)"
    ]
    said = [json.loads(line) for line in lines if line.startswith("{")]
    (limit,) = [line for line in said if line["message"].startswith("Hard time limit")]
    assert (limit["task"], limit["task_id"], limit["attempt"]) == ("logs.slow", sent["logs.slow"].id, 1)
    assert limit["worker"] == f"{worker.name}@localhost"
    told = [line for line in said if line["message"] == "told x"]
    assert [line["task_id"] for line in told] == [sent["logs.say"].id]
