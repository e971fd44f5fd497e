"""`run.py` of a generated project: processes that live and end together, a worker for each lane among them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytestmark = pytest.mark.template


class Runner:
    """`run.py` of a project, in a process of its own."""

    def __init__(self, project):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        project.run("manage.py", "migrate", "--verbosity", "0")
        project.run("manage.py", "createcachetable")
        for file in ("heartbeat", "relay.json"):
            (project.path / "var" / file).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [sys.executable, "run.py", "--port", str(self.port)],
            cwd=project.path,
            env=project.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait_until_up(self):
        deadline = time.monotonic() + 60
        while (health := self.health()) != dict.fromkeys(("web", "database", "tasks", "relay"), "ok"):
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < deadline, health
            time.sleep(0.5)

    def health(self):
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as response:
                return json.load(response)
        except OSError as exc:
            return exc

    def children(self):
        """Process ids by the command line of each child."""
        listed = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.process.pid)], capture_output=True, text=True
        )
        return {args: int(pid) for pid, args in (line.split(None, 1) for line in listed.stdout.splitlines())}

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.communicate(timeout=120)[0]


@pytest.fixture
def runner(shop):
    runner = Runner(shop)
    runner.wait_until_up()
    yield runner
    runner.end()


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_when_one_process_dies_the_runner_says_so_and_stops_the_rest(runner):
    children = runner.children()
    queues = [argument for args in children for argument in args.split() if argument.startswith("--queues=")]
    assert sorted(queues) == ["--queues=customers", "--queues=default", "--queues=reports"]
    assert len(children) == 6
    beat = next(pid for args, pid in children.items() if " beat " in args)

    os.kill(beat, signal.SIGKILL)
    shown = runner.process.communicate(timeout=120)[0]

    assert runner.process.returncode == 1
    assert "beat ended with code -9: stopping the others" in shown
    assert not any(is_alive(pid) for pid in children.values())


def test_a_stop_is_warm_and_complete(runner):
    children = runner.children()

    shown = runner.end()

    assert runner.process.returncode == 0
    assert "Warm shutdown" in shown
    assert "killed" not in shown
    assert not any(is_alive(pid) for pid in children.values())
