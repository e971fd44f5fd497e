"""Every way to die ends in the table, on every pool and broker, and the same message can be sent again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from waiting import wait_until
from worker_processes import HERE, worker_environment

from django_taskkit.models import DeadLetter
from django_taskkit.probe.runner import Probe

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def probe(broker, producer, django_env, monkeypatch):
    """Make a probe on the broker of this test."""

    def make(**options):
        for name, value in worker_environment(broker.settings, django_env).items():
            monkeypatch.setenv(name, value)
        return Probe(producer, app_path="letters_app", **{"queue": broker.queue, **options})

    return make


@pytest.mark.parametrize(
    ("broker", "pool"),
    [
        *(("redis", pool) for pool in ("prefork", "threads", "gevent", "solo")),
        *((broker, "prefork") for broker in ("rabbitmq", "rabbitmq-quorum")),
        ("filesystem", "threads"),
        # Its pool forks in one thread while others run, and now and then a process hangs for that.
        pytest.param("filesystem", "prefork", marks=pytest.mark.soak),
        pytest.param("rabbitmq", "threads", marks=pytest.mark.soak),
        pytest.param("rabbitmq-quorum", "gevent", marks=pytest.mark.soak),
    ],
    indirect=["broker"],
)
def test_every_way_to_die_ends_in_the_table_and_back_on_the_queue(broker, pool, probe):
    with probe(pool=pool) as probing:
        outcomes = probing.run()
        log = probing.log_tail(400)

    missed = [
        f"{o.case.name}: expected {o.case.reason}, found {o.found or None}, intact {o.intact}, back {o.back!r}"
        for o in outcomes
        if not o.passed
    ]
    assert not missed, "\n".join([*missed, log])
    assert not DeadLetter.objects.exists()
    assert broker.message_count() == 0


def left_of_probes(broker):
    """Everything on the broker and in its result backend that bears a probe's name."""
    with broker.connection() as connection:
        channel = connection.default_channel
        if broker.name == "redis":
            found = [key.decode() for key in channel.client.keys("*")]
            sets = [key for key in found if channel.client.type(key) == b"set"]
            bound = [f"{key}: {channel.client.smembers(key)}" for key in sets]
            return [name for name in [*found, *bound] if "taskkit-probe-" in name]
        if broker.name == "filesystem":
            return [str(path) for path in broker.folder.rglob("*taskkit-probe-*") if path.is_file()]
        command = ["rabbitmqctl", "-q", "-p", connection.virtual_host]
        listed = [subprocess.run([*command, verb], capture_output=True, text=True, check=True).stdout
                  for verb in ("list_queues", "list_exchanges")]  # fmt: skip
        return [line for line in "".join(listed).splitlines() if "taskkit-probe-" in line]


@pytest.mark.parametrize("broker", ["redis", "rabbitmq", "rabbitmq-quorum", "filesystem"], indirect=True)
def test_a_probe_leaves_neither_queue_nor_messages_nor_results(broker, probe):
    with probe(queue="") as probing:
        kept = ("exception", "reject", "on_retry", "backend_down_success")
        probing.outcomes = [outcome for outcome in probing.outcomes if outcome.case.name in kept]
        assert [outcome for outcome in probing.run() if not outcome.passed] == [], probing.log_tail(400)
        assert left_of_probes(broker)
        os.killpg(probing._worker.pid, signal.SIGKILL)
        probing._worker.wait(10)
        for outcome in probing.outcomes:
            probing._send(outcome)

    assert left_of_probes(broker) == []
    assert not DeadLetter.objects.exists()


def test_a_queue_that_was_named_is_emptied_and_stays(probe, broker):
    with probe() as probing:
        os.killpg(probing._worker.pid, signal.SIGKILL)
        probing._worker.wait(10)
        probing._send(probing.outcomes[0])
        assert broker.message_count() == 1

    assert broker.message_count() == 0


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_ctrl_c_ends_a_probe_with_one_sentence_and_130_after_cleaning_up(broker, django_env, tmp_path):
    environment = worker_environment(broker.settings, django_env)
    # What runs in the background of a shell is told to ignore it.
    code = "import faulthandler, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "faulthandler.register(signal.SIGUSR1, all_threads=True); "
    code += "import letters_app; from django.core.management import execute_from_command_line as run; "
    command = [sys.executable, "-c", code + "run(['manage.py', 'taskkit', 'probe', '--app=letters_app'])"]
    said = tmp_path / "said"
    with open(said, "wb") as file:
        probing = subprocess.Popen(command, env=environment, cwd=HERE, stdout=file, stderr=file, start_new_session=True)
    try:
        wait_until(DeadLetter.objects.exists, 120, "the first dead letter")
        probing.send_signal(signal.SIGINT)
        try:
            code = probing.wait(90)
        except subprocess.TimeoutExpired:
            probing.send_signal(signal.SIGUSR1)  # it says where it stands
            wait_until(lambda: "most recent call first" in said.read_text(), 10, "a stack")
            code = None
        assert code == 130, said.read_text()
    finally:
        probing.kill()
        probing.wait(10)

    assert "Traceback" not in said.read_text()
    assert "Interrupted" in said.read_text().splitlines()[-1]
    assert left_of_probes(broker) == []
    assert not DeadLetter.objects.exists()
