"""The durable filesystem transport under real Celery workers, which are killed and stopped."""

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from celery import Celery

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]

Entry = namedtuple("Entry", "event number pid at")


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"still false after {seconds} s: {condition}")


def alive(pid):
    """Whether a process runs; one that ended and that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


class Project:
    """One broker folder, a ledger of what its tasks did, and the workers that the test started."""

    def __init__(self, folder):
        self.folder = folder
        self.ledger = folder / "ledger"
        self.workers = []
        self.app = Celery("client", broker="filesystem://", set_as_current=False)
        self.app.conf.update(
            broker_transport="django_taskkit.transports.filesystem:Transport",
            broker_transport_options={"folder": str(folder / "broker")},
        )

    def start_worker(self, pool, *options):
        name = f"worker{len(self.workers)}"
        command = [sys.executable, "-m", "celery", "-A", "filesystem_app", "worker", "-P", pool, "-c", "2"]
        with open(self.folder / f"{name}.log", "w") as log:
            worker = subprocess.Popen(
                [*command, "-n", f"{name}@test", *options],
                cwd=self.folder,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **{name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
                    "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
                    "TASKKIT_TEST_BROKER": str(self.folder / "broker"),
                    "TASKKIT_TEST_LEDGER": str(self.ledger),
                },
            )
        self.workers.append(worker)
        return worker

    def send(self, number, **options):
        return self.app.send_task("work", (number,), options.pop("kwargs", {}), **options)

    def entries(self, event):
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        entries = [Entry(*line.split()) for line in lines if line.count(" ") == 3]
        return [entry for entry in entries if entry.event == event]

    def numbers(self, event):
        return sorted(int(entry.number) for entry in self.entries(event))

    def messages(self):
        """Files of messages of the task queue, waiting or taken."""
        broker = self.folder / "broker"
        return [*broker.glob("ready/celery/*"), *broker.glob("inflight/*/celery/*")]

    def stop(self):
        for worker in self.workers:
            worker.kill()
            worker.wait()
        # Children of a killed pool whose tasks are still running: they are ours, by the ledger.
        for pid in {int(entry.pid) for entry in self.entries("started")}:
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.app.close()


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    yield project
    project.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="keeps children alive by a call that only Linux has")
def test_tasks_of_a_killed_prefork_parent_run_again_while_its_children_still_live(project):
    """kill -9 of the parent alone: its children go on, and must not keep the parent's messages locked.

    The children that count are those that were forked while the parent was holding messages, so each of the
    first two is replaced after one short task.
    """
    first = project.start_worker("prefork", "--max-tasks-per-child", "1")
    for number in range(2):
        project.send(number)
    wait_for(lambda: len(project.entries("done")) == 2)
    for number in range(2, 4):
        project.send(number, kwargs={"seconds": 300, "outlive_parent": True})
    wait_for(lambda: len(project.entries("started")) == 4)
    children = {int(entry.pid) for entry in project.entries("started") if int(entry.number) >= 2}

    first.kill()
    first.wait()
    project.start_worker("prefork")
    wait_for(lambda: project.numbers("done") == [0, 1, 2, 3])

    assert first.pid not in children
    assert all(alive(pid) for pid in children)
    assert not children & {int(entry.pid) for entry in project.entries("done")}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_no_task_is_lost_when_a_worker_is_killed(project, pool):
    for number in range(20):
        project.send(number, kwargs={"seconds": 0.3})
    first = project.start_worker(pool)
    wait_for(lambda: len(project.entries("done")) >= 3)

    first.kill()
    first.wait()
    project.start_worker(pool)
    wait_for(lambda: set(project.numbers("done")) == set(range(20)))

    wait_for(lambda: not project.messages())


@pytest.mark.soak
def test_no_task_of_thousands_is_lost_under_many_kills(project):
    """Workers of both pools, one of which is killed each time that another two hundred tasks are done."""
    total, workers = 3_000, [project.start_worker("prefork"), project.start_worker("threads")]
    for number in range(total):
        project.send(number, kwargs={"seconds": 0.005})

    def done():
        return len(set(project.numbers("done")))

    kills = 0
    while done() < total:
        goal = min(total, done() + 200)
        wait_for(lambda goal=goal: done() >= goal, seconds=300)
        workers[kills % 2].kill()
        workers[kills % 2].wait()
        workers[kills % 2] = project.start_worker(("prefork", "threads")[kills % 2])
        kills += 1

    wait_for(lambda: not project.messages())
    assert kills >= 10
    assert set(project.numbers("done")) == set(range(total))


def test_a_warm_shutdown_finishes_what_runs_and_gives_back_the_rest(project):
    for number in range(12):
        project.send(number, kwargs={"seconds": 0.5})
    first = project.start_worker("prefork")
    wait_for(lambda: len(project.entries("started")) >= 2)

    first.terminate()
    assert first.wait(timeout=30) == 0
    done_by_first = project.numbers("done")
    assert project.numbers("started") == done_by_first
    assert len(project.messages()) == 12 - len(done_by_first)

    project.start_worker("threads")
    wait_for(lambda: len(project.entries("done")) >= 12)
    assert project.numbers("done") == list(range(12))
    wait_for(lambda: not project.messages())


def test_remote_control_reaches_the_worker_and_leaves_no_files(project):
    project.start_worker("threads")

    replies = wait_for(lambda: project.app.control.ping(timeout=2, limit=1))
    stats = project.app.control.inspect(timeout=2).stats()
    project.app.control.revoke("no-such-id")
    revoked = wait_for(lambda: project.app.control.inspect(timeout=1).revoked())

    assert replies == [{"worker0@test": {"ok": "pong"}}]
    assert list(stats) == ["worker0@test"]
    assert revoked == {"worker0@test": ["no-such-id"]}
    assert not list((project.folder / "broker" / "ready").glob("*reply*"))


def test_the_control_queue_of_a_killed_worker_disappears(project):
    ready = project.folder / "broker" / "ready"
    first = project.start_worker("threads")
    wait_for(lambda: project.app.control.ping(timeout=2, limit=1))
    assert list(ready.glob("worker0*pidbox"))

    first.kill()
    first.wait()
    project.start_worker("threads")
    wait_for(lambda: not list(ready.glob("worker0*pidbox")))

    project.app.control.broadcast("ping")
    assert not list(ready.glob("worker0*pidbox"))


def test_a_countdown_is_kept(project):
    project.start_worker("threads")
    sent = time.time()

    project.send(1, countdown=2)
    (entry,) = wait_for(lambda: project.entries("done"))

    assert 2 <= float(entry.at) - sent < 10
