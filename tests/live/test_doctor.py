"""`manage.py taskkit doctor` in a sane project, which it has nothing to say about, and where workers differ."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import harness
import letters_settings
import pytest
from examining import examined, redis_server
from harness import free_port, wait_until
from worker_processes import worker_environment

from django_taskkit.beat import state
from django_taskkit.models import RelayHeartbeat

pytestmark = pytest.mark.django_db(transaction=True)

MANAGE = "import sys, doctor_app; from django.core.management import execute_from_command_line as run; run(sys.argv)"


SANE_REDIS = {
    "broker_transport": "django_taskkit.transports.redis:Transport",
    "broker_transport_options": {"socket_keepalive": True},
}


@pytest.fixture
def sane_settings(broker):
    """Settings by which nothing is lost, on a broker that keeps what it has."""
    with contextlib.ExitStack() as stack:
        if broker.name == "redis":
            url = stack.enter_context(redis_server(durable=True)).url()
            broker.settings.update(SANE_REDIS, broker_url=url, result_backend=url)
        else:
            options = {"x-queue-type": "quorum", "x-delivery-limit": 20, "x-dead-letter-exchange": broker.queue}
            broker.settings["broker_transport_options"] = {"confirm_publish": True}
            broker.settings["task_create_missing_queues"] = False
            broker.settings["task_queues"] = {
                broker.queue: {
                    "exchange": broker.queue_named("tasks"),
                    "exchange_type": "topic",
                    "routing_key": broker.queue,
                    "queue_arguments": options,
                }
            }
        yield broker.settings


@contextlib.contextmanager
def ended():
    """A list of processes, which are ended."""
    processes = []
    try:
        yield processes
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(30)


@pytest.mark.parametrize("broker", ["redis", "rabbitmq-quorum"], indirect=True)
def test_of_a_sane_project_the_doctor_has_nothing_to_say(broker, sane_settings, django_env, start_worker, tmp_path):
    env = {**django_env, "DJANGO_SETTINGS_MODULE": "doctor_settings"}
    start_worker("doctor_app", broker, pool="threads", concurrency=2, env=env)
    environment = worker_environment(sane_settings, env)

    def start(*command, **options):
        command = [sys.executable, *command]
        return subprocess.Popen(command, env=environment, cwd=harness.ROOT, text=True, **options)

    with (tmp_path / "log").open("w") as log, ended() as others:
        others += [start("-c", MANAGE, "taskkit", "relay", stdout=log, stderr=log)]
        beat = ("-m", "celery", "-A", "doctor_app", "beat", f"--schedule={tmp_path / 'beat'}", "--pidfile=")
        others += [start(*beat, stdout=log, stderr=log)]
        wait_until(lambda: RelayHeartbeat.objects.exists() and state(broker.app("doctor")), 90, "a relay and a beat")
        doctor = start(
            "-c", MANAGE, "taskkit", "doctor", "--fail-on", "warning", "--timeout", "30", stdout=subprocess.PIPE
        )
        said, _ = doctor.communicate(timeout=120)

    assert {line.split()[0] for line in said.splitlines()[:-2]} == {"ok"}, said
    assert doctor.returncode == 0


def test_a_database_that_is_down_is_one_error_and_keeps_no_other_probe(broker):
    gone = {"ENGINE": "django.db.backends.postgresql", "NAME": "x", "HOST": "127.0.0.1", "PORT": str(free_port())}
    env = {"DJANGO_SETTINGS_MODULE": "doctor_settings", letters_settings.DATABASE_VARIABLE: json.dumps(gone)}
    chosen = ("database", "migrations", "broker", "beat", "relay", "outbox", "dead-letters")
    command = [sys.executable, "-c", MANAGE, "taskkit", "doctor", "--json", *(f"--only={name}" for name in chosen)]

    done = subprocess.run(
        command,
        env=worker_environment(broker.settings, env),
        cwd=harness.ROOT,
        text=True,
        capture_output=True,
        timeout=90,
    )

    assert done.returncode == 1, done.stderr
    levels = {finding["id"]: finding["level"] for finding in json.loads(done.stdout)["findings"]}
    assert levels.pop("database") == "error"
    assert levels.pop("broker") == "ok"
    assert levels.pop("beat") in ("ok", "unknown")
    assert set(levels.values()) == {"unknown"}


def test_workers_that_differ_are_told_apart(broker, producer, django_env, start_worker):
    env = {**django_env, "DJANGO_SETTINGS_MODULE": "doctor_settings"}
    other = {
        **env,
        "TASKKIT_TEST_DOCTOR": json.dumps({"TASKKIT": {"RELEASE": "two"}}),
        "TASKKIT_TEST_CLOCK_AHEAD": "900",
    }
    one = start_worker("doctor_app", broker, pool="threads", env={**env, "TASKKIT_TEST_MORE_TASKS": "1"})
    two = start_worker("doctor_app", broker, pool="threads", env=other)
    plain = start_worker("plain_app", broker, pool="threads")

    @producer.task(name="doctor.newer", shared=False)
    def newer():
        return None

    producer.finalize()
    code, found = examined("--only", "workers", "--only", "clocks", "--only", "queues", "--timeout", "30")

    assert code == 1
    assert all(worker.name in found["workers"]["text"] for worker in (one, two, plain))
    assert found["worker-without-taskkit"]["level"] == "error"
    assert plain.name in found["worker-without-taskkit"]["text"]
    assert found["worker-versions"]["level"] == "warning"
    assert f"one ({one.name}@localhost)" in found["worker-versions"]["text"]
    assert f"two ({two.name}@localhost)" in found["worker-versions"]["text"]
    assert found["worker-tasks"]["level"] == "error"
    assert found["clocks"]["level"] == "error"
    assert two.name in found["clocks"]["text"]
    assert one.name not in found["clocks"]["text"]
    assert found["queue-unread"]["level"] == "ok"


def test_where_nobody_works_that_is_an_error(producer):
    code, found = examined("--only", "workers")

    assert (code, found["workers"]["level"]) == (1, "error")
