"""`run.py` of a generated project: processes that live and end together, and start anew when its files change."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.template

LANES = ("customers", "reports", "geocoding", "default")

TASK = """
import time
from pathlib import Path

from celery import shared_task


@shared_task
def wait_for_go(folder):
    folder = Path(folder)
    with (folder / "started").open("a") as file:
        file.write("{code}\\n")
    while not (folder / "go").exists():
        time.sleep(0.05)
    with (folder / "done").open("a") as file:
        file.write("{code}\\n")
"""

SEND = "import sys; from orders.waiting import wait_for_go; wait_for_go.delay(sys.argv[1])"


class Runner:
    """`run.py` of a project, in a process of its own."""

    def __init__(self, project, log, **environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.project = project
        self.log = log
        project.run("manage.py", "migrate", "--verbosity", "0")
        project.run("manage.py", "createcachetable")
        with open(log, "wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "run.py", "--port", str(self.port)],
                cwd=project.path,
                env=project.environment(**environment),
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    @property
    def shown(self):
        return self.log.read_text()

    def until(self, condition, seconds=90):
        deadline = time.monotonic() + seconds
        while not (value := condition()):
            assert self.process.poll() is None, self.shown
            assert time.monotonic() < deadline, self.shown
            time.sleep(0.1)
        return value

    def wait_until_up(self):
        self.until(self.is_ready)
        for lane in LANES:
            self.until(lambda lane=lane: self.says_it_works("worker", f"--queue=shop.{lane}"))
        self.until(lambda: self.says_it_works("beat"))
        self.until(lambda: self.says_it_works("relay"))

    def is_ready(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as response:
                return response.status == 200
        except OSError:
            return False

    def says_it_works(self, *role):
        asked = subprocess.run(
            [sys.executable, "-m", "django_taskkit.observability.health", *role],
            env=self.project.environment(TASKKIT_HEALTH_DIR=str(self.project.path / "var" / "health")),
            capture_output=True,
        )
        return asked.returncode == 0

    def children(self):
        """Process ids by the command line of each child."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        lines = [line.split(None, 1) for line in listed.stdout.splitlines()]
        return {args: int(pid) for pid, args in lines if "reload.py" not in args}

    def child(self, word):
        return next((pid for args, pid in self.children().items() if word in args), None)

    def end(self, timeout=120):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout)
        return self.shown


@pytest.fixture
def started(shop, tmp_path):
    """Start `run.py` in a project that may be changed, whose task waits until the test lets it go."""
    running = []

    def start(**environment):
        project = shop.copy(tmp_path / "shop")
        (project.path / "orders" / "waiting.py").write_text(TASK.format(code="old"))
        with (project.path / "config" / "settings" / "tasks.py").open("a") as settings:
            settings.write('CELERY_IMPORTS += ["orders.waiting"]\n')
        running.append(Runner(project, tmp_path / "log", **environment))
        running[0].wait_until_up()
        return running[0]

    yield start
    for runner in running:
        (runner.project.path / "go").touch()
        runner.end()


@pytest.fixture
def send(tmp_path):
    """Send the task that waits; return once it has started."""

    def send(runner):
        folder = runner.project.path
        runner.project.run("-c", f"import django; django.setup(); {SEND}", str(folder), **DEVELOPMENT)
        runner.until(lambda: (folder / "started").exists())
        return folder

    return send


DEVELOPMENT = {"DJANGO_SETTINGS_MODULE": "config.settings.development"}


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_when_one_process_dies_the_runner_says_so_and_stops_the_rest(started):
    runner = started()
    children = runner.children()
    queues = [argument for args in children for argument in args.split() if argument.startswith("--queues=")]
    assert sorted(queues) == sorted(f"--queues=shop.{lane}" for lane in LANES)
    assert len(children) == 7

    os.kill(runner.child(" beat "), signal.SIGKILL)
    runner.process.wait(120)

    assert runner.process.returncode == 1
    assert "beat ended with code -9: stopping the others" in runner.shown
    assert not any(is_alive(pid) for pid in children.values())


def test_the_first_lines_say_where_the_site_is_and_a_stop_is_warm_and_complete(started):
    runner = started()
    children = runner.children()

    shown = runner.end()

    first, second = shown.splitlines()[:2]
    assert f"http://127.0.0.1:{runner.port}/ " in first
    assert f"http://127.0.0.1:{runner.port}/admin/ " in second
    assert runner.process.returncode == 0
    assert "Warm shutdown" in shown
    assert "killed" not in shown
    assert not any(is_alive(pid) for pid in children.values())


def test_a_second_ctrl_c_does_not_wait_for_the_task_whose_message_stays(started, send):
    runner = started(RELOAD="0")
    folder = send(runner)
    (folder / "orders" / "waiting.py").write_text(TASK.format(code="new"))  # is not looked at

    runner.process.send_signal(signal.SIGINT)
    runner.until(lambda: "Warm shutdown" in runner.shown)
    runner.process.send_signal(signal.SIGINT)
    runner.process.wait(60)

    assert runner.process.returncode == 0
    assert "does not stop: killed" not in runner.shown
    assert "changed: starting anew" not in runner.shown
    assert not (folder / "done").exists()
    assert waiting(folder / "var" / "broker")


def waiting(broker):
    """Files of the broker that hold the task's message."""
    return [file for file in broker.rglob("*") if file.is_file() and b"wait_for_go" in file.read_bytes()]


def test_a_port_that_is_taken_is_said(shop):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "run.py", "--port", str(port)],
            cwd=shop.path,
            env=shop.environment(),
            capture_output=True,
            text=True,
        )

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"127.0.0.1:{port} is not to be had: Address already in use; "
        f"free it, or take another: make run PORT={port + 1}\n"
    )


# --- when files change ---------------------------------------------------------------------------------------


@pytest.mark.boot
def test_a_change_starts_all_anew_and_a_task_that_takes_too_long_is_done_by_the_new_code(started, send):
    pytest.importorskip("watchfiles")
    runner = started()
    before = runner.children()
    folder = send(runner)

    (folder / "orders" / "waiting.py").write_text(TASK.format(code="new"))

    runner.until(lambda: "orders/waiting.py changed: starting anew" in runner.shown)
    runner.until(lambda: (folder / "started").read_text() == "old\nnew\n")
    (folder / "go").touch()
    runner.until(lambda: (folder / "done").exists())
    runner.wait_until_up()
    after = runner.children()
    assert (folder / "done").read_text() == "new\n"
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert "killed" not in runner.shown


@pytest.mark.boot
def test_a_change_that_does_not_load_is_shown_and_stops_nothing_nor_do_files_that_are_no_code(started):
    pytest.importorskip("watchfiles")
    runner = started()
    before = runner.children()
    folder = runner.project.path
    views = folder / "orders" / "views.py"
    text = views.read_text()

    for file in ("var/media/a.py", "media/b.py", ".venv/c.py", "tests/test_d.py", "orders/e.csv"):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("")
    views.write_text(text + "def (\n")

    runner.until(lambda: "the project does not load" in runner.shown)
    assert "orders/views.py changed, and the project does not load: all goes on as it was" in runner.shown
    assert "SyntaxError" in runner.shown
    assert runner.children() == before

    views.write_text(text)
    runner.until(lambda: "orders/views.py changed: starting anew" in runner.shown)
