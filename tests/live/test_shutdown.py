"""A worker that is told to end, in every way it can be told, or cut off from its broker: nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
from urllib.parse import urlsplit

import endings_app
import harness
import pytest
from database_outage import Proxy
from django.core.checks import run_checks

from django_taskkit.dlq import requeue
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)

EARLY, LATE = "", "_late"
"""What the names of tasks end with: acknowledged before they run, and afterwards."""

TOLD = {
    "warm": (signal.SIGTERM, {}, {}, "Warm shutdown"),
    # Celery waits that long, also when everything has ended.
    "soft": (signal.SIGQUIT, {"worker_soft_shutdown_timeout": 8}, {}, "Initiating Soft Shutdown"),
    "cold": (signal.SIGQUIT, {}, {}, ""),
    "remapped": (signal.SIGTERM, {}, {"REMAP_SIGTERM": "SIGQUIT"}, ""),
}


def soak(*values):
    return pytest.param(*values, marks=pytest.mark.soak)


@pytest.fixture
def start(broker, producer, start_worker, django_env):
    """Start a worker; it takes more messages than it can run, so that some are waiting in it."""
    if broker.name == "redis":
        broker.settings.update(broker_transport="django_taskkit.transports.redis:Transport")

    def start(env_more=None, **options):
        options = {"arguments": ["--without-mingle", "--without-gossip"], "concurrency": 2, **options}
        return start_worker("endings_app", broker, env={**django_env, **(env_more or {})}, **options)

    return start


@pytest.fixture
def tasks(producer, tmp_path):
    return Tasks(producer, tmp_path)


class Tasks:
    """For each kind one that runs until it is told to end, one that waits behind it, and one for later."""

    def __init__(self, producer, folder):
        self.producer, self.folder = producer, folder
        self.ids = {}

    def send(self, kinds):
        for kind in kinds:
            self._send("run_until_told", "running", kind)
        for kind in kinds:
            harness.wait_until(lambda kind=kind: self.count("began", f"running{kind}"), 90, f"running{kind} runs")
        for kind in kinds:
            self._send("succeed", "behind", kind)
            self._send("succeed", "later", kind, countdown=4)

    def _send(self, task, name, kind, **options):
        sent = self.producer.send_task(f"endings.{task}{kind}", (str(self.folder), name + kind), **options)
        self.ids[name + kind] = sent.id

    def tell_to_end(self):
        for name in self.ids:
            (self.folder / name).touch()

    def count(self, what, name):
        return endings_app.count(self.folder, name, what)

    def began(self):
        return {name: self.count("began", name) for name in self.ids}

    def wait_until_all_have_ended(self):
        def missing():
            return [name for name in self.ids if not self.count("ended", name)]

        harness.wait_until(lambda: not missing(), 90, "all have succeeded")


@pytest.mark.parametrize(
    ("broker", "pool", "how"),
    [
        ("rabbitmq", "prefork", "warm"),
        ("redis", "prefork", "soft"),
        soak("redis", "threads", "warm"),
        soak("rabbitmq-quorum", "gevent", "warm"),
        soak("rabbitmq", "threads", "soft"),
        soak("redis", "gevent", "soft"),
    ],
    indirect=["broker"],
)
def test_a_worker_that_may_finish_loses_nothing_and_repeats_nothing(start, tasks, pool, how):
    number, settings, env_more, said = TOLD[how]
    worker = start(env_more, pool=pool, settings=settings)
    tasks.send([EARLY, LATE])

    os.kill(worker.pid, number)
    worker.wait_for_log(said)
    tasks.tell_to_end()
    worker.wait(90)
    start(pool=pool)

    tasks.wait_until_all_have_ended()
    assert tasks.began() == dict.fromkeys(tasks.ids, 1)
    assert not DeadLetter.objects.exists()
    states = {name: tasks.producer.AsyncResult(task_id).state for name, task_id in tasks.ids.items() if "run" in name}
    assert set(states.values()) == {"SUCCESS"}, states


@pytest.mark.parametrize(
    ("broker", "pool", "how", "kinds"),
    [
        ("redis", "prefork", "cold", [EARLY, LATE]),
        ("redis", "gevent", "cold", [EARLY, LATE]),
        soak("rabbitmq", "prefork", "remapped", [EARLY, LATE]),
        soak("redis", "gevent", "remapped", [EARLY, LATE]),
        soak("redis", "solo", "cold", [EARLY]),
        soak("redis", "solo", "cold", [LATE]),
    ],
    indirect=["broker"],
)
def test_what_a_cold_shutdown_kills_runs_again_or_is_a_dead_letter(start, tasks, pool, how, kinds):
    number, settings, env_more, _said = TOLD[how]
    worker = start(env_more, pool=pool, settings=settings)
    tasks.send(kinds)

    os.kill(worker.pid, number)
    worker.wait(90)
    tasks.tell_to_end()
    if EARLY in kinds:
        dead = DeadLetter.objects.get()
        assert (dead.task_id, dead.reason) == (tasks.ids["running"], "worker_lost")
        assert dead.exception_class.endswith(".CancelledError")
        assert requeue(DeadLetter.objects.all()).requeued == 1
    start(pool=pool)

    tasks.wait_until_all_have_ended()
    assert [tasks.count("began", f"running{kind}") for kind in kinds] == [2] * len(kinds)
    assert [tasks.count("ended", f"running{kind}") for kind in kinds] == [1] * len(kinds)
    harness.wait_until(lambda: not DeadLetter.objects.exclude(status="recovered").exists(), 30, "nothing is dead")


@pytest.mark.parametrize("broker", [soak("redis")], indirect=True)
def test_a_cold_shutdown_of_threads_waits_for_them(start, tasks):
    """Nobody can end a thread from outside. A message acknowledged late is given back meanwhile, and may run again."""
    worker = start(pool="threads")
    tasks.send([EARLY, LATE])

    os.kill(worker.pid, signal.SIGQUIT)
    worker.wait_for_log("Hitting Ctrl+C again")
    tasks.tell_to_end()
    worker.wait(90)
    start(pool="threads")

    tasks.wait_until_all_have_ended()
    assert tasks.count("began", "running") == 1
    assert tasks.count("began", "running_late") <= 2
    assert not DeadLetter.objects.exists()
    assert "NotImplementedError" not in worker.log()


@pytest.fixture
def proxy(broker):
    """What stands between the worker, not the test, and the broker."""
    address = urlsplit(broker.settings["broker_url"])
    proxy = Proxy({"HOST": address.hostname, "PORT": address.port})
    user, at, _host = address.netloc.rpartition("@")
    proxy.url = address._replace(netloc=f"{user}{at}127.0.0.1:{proxy.settings['PORT']}").geturl()
    with contextlib.closing(proxy):
        yield proxy


@pytest.mark.parametrize(
    ("broker", "pool"),
    [
        ("rabbitmq", "prefork"),
        ("redis", "threads"),
        soak("rabbitmq", "gevent"),
        soak("rabbitmq-quorum", "threads"),
        soak("redis", "prefork"),
    ],
    indirect=["broker"],
)
def test_a_worker_that_loses_its_broker_while_it_works_loses_no_task(start, tasks, proxy, pool):
    """It can't acknowledge what it finishes meanwhile, which comes once more; what was acknowledged runs once."""
    settings = {"broker_url": proxy.url, "worker_cancel_long_running_tasks_on_connection_loss": False}
    # Redis gives back what a worker held that is gone; an hour is its default.
    settings["broker_transport_options"] = {"visibility_timeout": 8, "unacked_restore_interval": 1}
    worker = start(pool=pool, settings=settings)
    tasks.send([EARLY, LATE])

    proxy.down()
    worker.wait_for_log("onnection to broker lost", 60)
    tasks.tell_to_end()
    harness.wait_until(lambda: all(tasks.count("ended", f"running{kind}") for kind in (EARLY, LATE)), 60, "they end")
    proxy.up()

    tasks.wait_until_all_have_ended()
    assert tasks.count("began", "running") == 1
    assert not DeadLetter.objects.exists()
    assert worker.alive


def test_what_an_early_acknowledgement_cannot_promise_is_warned_of_by_check_deploy(producer):
    """A worker that is killed as a whole takes along what it has acknowledged: test_poison.py shows it."""
    found = run_checks(tags=["django_taskkit"], include_deployment_checks=True)

    warned = {warning.obj for warning in found if warning.id == "taskkit.W001"}
    assert {"endings.run_until_told", "endings.succeed"} <= warned
    assert not {"endings.run_until_told_late", "endings.succeed_late"} & warned
