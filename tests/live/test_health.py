"""What the probe says of real processes: that work, hang, were killed, lost their broker, or consume nothing."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import harness
import pytest
from worker_processes import worker_environment

from django_taskkit.observability.health import files
from django_taskkit.observability.health.signs import EVERY

pytestmark = pytest.mark.django_db(transaction=True)

HERE = Path(__file__).resolve().parent
PROBE = [sys.executable, "-m", "django_taskkit.observability.health"]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "health"


@pytest.fixture
def env(django_env, folder):
    return {**django_env, "DJANGO_SETTINGS_MODULE": "health_settings", "TASKKIT_TEST_HEALTH_DIR": str(folder)}


@pytest.fixture
def probe(folder):
    def probe(role, *options):
        command = [*PROBE, role, f"--dir={folder}", *options]
        done = subprocess.run(command, capture_output=True, text=True, cwd=harness.ROOT, check=False)
        return done.returncode, done.stdout + done.stderr

    return probe


@pytest.fixture
def says(probe):
    """Wait until the probe says so, with this exit code."""

    def says(role, text, *options, code):
        def so():
            returned, output = probe(role, *options)
            return (returned, text in output) == (code, True)

        harness.wait_until(so, 60, f"the probe says {text!r}", interval=0.3)

    return says


@pytest.fixture
def start(start_worker, broker, env):
    return lambda **options: start_worker("health_app", broker, env=env, **options)


@pytest.fixture
def start_process(broker, env, tmp_path):
    """Start ``celery beat`` or the relay, in a process group of its own."""
    started = []

    def start(*arguments):
        with open(tmp_path / "process.log", "ab") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, *arguments],
                    env=worker_environment(broker.settings, env),
                    cwd=harness.ROOT,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        return started[-1]

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def signs(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("broker", "pool"),
    [
        ("redis", "prefork"),
        pytest.param("rabbitmq", "prefork", marks=pytest.mark.soak),
        pytest.param("redis", "gevent", marks=pytest.mark.soak),
        ("rabbitmq", "threads"),
        pytest.param("filesystem", "prefork", marks=pytest.mark.soak),
    ],
    indirect=["broker"],
)
def test_a_worker_that_hangs_is_found_out_and_one_that_stops_takes_its_file_away(
    broker, pool, start, probe, says, folder
):
    worker = start(pool=pool)
    says("worker", broker.queue, f"--queue={broker.queue}", code=0)
    assert "no worker here consumes other" in probe("worker", "--queue=other")[1]

    os.kill(worker.pid, signal.SIGSTOP)
    says("worker", "has not turned its loop", "--max-age=8", code=1)
    says("worker", "has not turned its loop", "--max-age=8", "--alive", code=1)
    os.kill(worker.pid, signal.SIGCONT)
    says("worker", broker.queue, "--max-age=8", code=0)

    worker.stop()
    assert signs(folder) == []
    assert probe("worker")[0] == 1


def test_a_fresh_worker_says_that_it_consumes_before_its_next_regular_sign(broker, start, folder):
    start()

    def first_that_consumes():
        return next((sign for sign in files.read(str(folder), "worker") if sign["queues"]), None)

    sign = harness.wait_until(first_that_consumes, 60, "it consumes", interval=0.1)
    assert sign["at"] - sign["connected_at"] < EVERY


def test_a_killed_worker_is_dead_at_once_until_another_of_its_name_is_at_work(broker, start, probe, says, folder):
    worker = start()
    says("worker", "consumes", code=0)

    worker.kill()

    assert probe("worker")[0] == 1
    assert "did not stop in good order" in probe("worker", "--alive")[1]
    worker._kill_group()
    worker.start()
    says("worker", "consumes", code=0)
    assert len(signs(folder)) == 1


def test_a_worker_that_was_told_to_consume_nothing_lives_and_does_not_work(broker, start, says):
    worker = start()
    says("worker", "consumes", code=0)
    app = broker.app()

    app.control.cancel_consumer(broker.queue, destination=[f"{worker.name}@localhost"])
    says("worker", "consumes from no queue", code=1)
    says("worker", "consumes nothing", "--alive", code=0)

    app.control.add_consumer(broker.queue, destination=[f"{worker.name}@localhost"])
    says("worker", f"consumes {broker.queue}", code=0)
    app.close()


@pytest.mark.parametrize("pool", ["prefork", pytest.param("solo", marks=pytest.mark.soak)])
def test_without_its_broker_a_worker_lives_and_does_not_work(broker, pool, server, start, says):
    broker.settings.update(broker_url=server.url(), result_backend=server.url())
    start(pool=pool)
    says("worker", "consumes", code=0)

    server.kill()
    says("worker", "has had no connection to the broker", "--max-age=8", code=1)
    says("worker", "no connection to the broker for 8", "--max-age=8", code=1)
    says("worker", "consumes nothing", "--max-age=8", "--alive", code=0)

    server.start()
    says("worker", f"consumes {broker.queue}", code=0)


def test_a_solo_worker_in_the_middle_of_a_long_task_is_well(broker, producer, start, says, probe, tmp_path):
    start(pool="solo")
    path = tmp_path / "end"
    producer.send_task("health.wait_for", (str(path),))

    says("worker", "busy with health.wait_for", "--max-age=6", code=0)
    says("worker", "busy with health.wait_for", "--max-age=6", code=0)
    path.touch()
    harness.wait_until(lambda: "busy" not in probe("worker")[1], 60, "it is not busy any more", interval=0.3)


def test_beat_that_works_hangs_ends_or_is_killed(broker, start_process, says, probe, folder, tmp_path):
    beat = ["-m", "celery", "-A", "health_app", "beat", f"--schedule={tmp_path / 'schedule'}"]
    first = start_process(*beat)
    says("beat", "is at work", code=0)

    second = start_process(*beat)
    says("beat", "is standing by", code=0)
    second.send_signal(signal.SIGTERM)
    second.wait(30)
    assert len(signs(folder)) == 1

    first.send_signal(signal.SIGSTOP)
    says("beat", "has not turned its loop", "--max-age=2", code=1)
    first.send_signal(signal.SIGCONT)
    first.kill()
    first.wait(30)
    assert "is gone" in probe("beat")[1]


def test_a_relay_that_works_ends_or_is_killed(broker, start_process, says, probe, folder):
    relay = [str(HERE / "health_manage.py"), "taskkit", "relay", "--interval=0.2"]
    first = start_process(*relay)
    says("relay", "is at work", code=0)
    first.send_signal(signal.SIGTERM)
    assert first.wait(30) == 0
    assert signs(folder) == []

    killed = start_process(*relay)
    says("relay", "is at work", code=0)
    killed.kill()
    killed.wait(30)
    assert "is gone" in probe("relay")[1]


@pytest.mark.soak
def test_the_verb_reads_the_folder_of_the_settings(broker, start, env, says):
    start()
    says("worker", "consumes", code=0)
    command = [sys.executable, str(HERE / "health_manage.py"), "taskkit", "health", "worker"]
    environment = worker_environment(broker.settings, env)

    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=harness.ROOT, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"consumes {broker.queue}" in done.stdout
