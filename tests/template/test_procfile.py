"""The Procfile of a generated project under a real honcho, which signals whole groups and kills after five seconds."""

import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.template.conftest import tool
from tests.template.marks import SEND, Marks, add_slow_task

pytestmark = [pytest.mark.template, pytest.mark.boot]

DEVELOPMENT = {"DJANGO_SETTINGS_MODULE": "config.settings.development"}


@pytest.fixture(scope="module")
def project(bake, tmp_path_factory):
    project = bake().copy(tmp_path_factory.mktemp("procfile") / "shop")
    add_slow_task(project)
    return project


class Honcho:
    def __init__(self, project, *names):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
        self.log = project.path / "var" / "honcho.log"
        self.project, self.marks = project, Marks(project.path / "var" / "marks")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [tool("honcho"), "start", *names],
                cwd=project.path,
                env=project.environment(PATH=path, PORT=port, PYTHONUNBUFFERED="1", **DEVELOPMENT),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, fact, what, seconds=240):
        deadline = time.monotonic() + seconds
        while not fact():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}\n{self.log.read_text()}"
            time.sleep(0.1)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=60)


def test_the_release_and_a_stop_in_the_middle_of_tasks_lose_nothing(project):
    project.execute("sh", "-c", f"exec {tool('honcho')} run true", **DEVELOPMENT)
    release = next(line for line in project.text("Procfile").splitlines() if line.startswith("release: "))
    command = release.removeprefix("release: ").replace("python ", f"{sys.executable} ")
    project.execute("sh", "-c", command, **DEVELOPMENT)
    honcho = Honcho(
        project, "web", "worker-customers", "worker-reports", "worker-geocoding", "worker-default", "beat", "relay"
    )
    try:
        honcho.until(lambda: honcho.log.read_text().count(" ready.") == 4, "four workers are ready")
        project.run("-c", SEND, "2.5", "a", "b", "c", **DEVELOPMENT)
        project.run("-c", SEND, "30", "long", **DEVELOPMENT)
        honcho.until(
            lambda: "long" in honcho.marks.names("began"), "tasks run, one of them for longer than a stop takes"
        )
    finally:
        honcho.stop()
    ended = set(honcho.marks.names("ended"))
    assert "long" not in ended

    after = Honcho(project, "worker-default")
    try:
        after.until(lambda: honcho.marks.names("ended").count("long") == 1, "what was not done is done")
    finally:
        after.stop()

    assert set(honcho.marks.names("ended")) == {"a", "b", "c", "long"}
    letters = project.run("manage.py", "taskkit", "list", "--json", **DEVELOPMENT)
    assert "orders.tasks.slow" not in letters
