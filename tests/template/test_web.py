"""The web of a generated project under gunicorn: its code is loaded once, and nothing is open when it forks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from tests.live.waiting import free_port
from tests.template.test_ops import collector as collector

pytestmark = pytest.mark.template


class Web:
    def __init__(self, project, folder, **environment):
        self.port = free_port()
        self.log = folder / "web.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    Path(sys.executable).with_name("gunicorn"),
                    "-c",
                    "gunicorn.conf.py",
                    f"--bind=127.0.0.1:{self.port}",
                    "config.wsgi",
                ],
                cwd=project.path,
                env=project.environment(WEB_PROCESSES="1", **environment),
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def answers(self):
        try:
            request = Request(f"http://127.0.0.1:{self.port}/healthz")
            with build_opener(ProxyHandler({})).open(request, timeout=10) as answer:
                return answer.status == 200
        except (URLError, ConnectionError):
            return False

    def until(self, fact, what):
        deadline = time.monotonic() + 60
        while not fact():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, f"{what}\n{self.log.read_text()}"
            time.sleep(0.1)

    def processes(self):
        task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in task.read_text().split()]

    def end(self):
        self.process.terminate()
        self.process.wait(60)


@pytest.fixture
def web(tmp_path):
    started = []

    def start(project, **environment):
        started.append(Web(project, tmp_path, **environment))
        started[-1].until(started[-1].answers, "it answers")
        return started[-1]

    yield start
    for web in started:
        web.end()


def test_a_process_that_is_replaced_has_the_code_of_all_others(bake, web, tmp_path):
    project = bake(observability="prometheus").copy(tmp_path / "shop")
    running = web(project)
    [old] = running.processes()
    (project.path / "config/urls.py").write_text("raise RuntimeError('the next release, which is not yet migrated')\n")

    os.kill(old, signal.SIGTERM)

    running.until(lambda: running.processes() not in ([], [old]), "another process is there")
    running.until(running.answers, "it answers")


@pytest.mark.parametrize("observability", ["none", "sentry", "prometheus", "opentelemetry"])
def test_nothing_is_open_when_processes_fork_off(bake, web, observability):
    project = bake(observability=observability)
    project.run("manage.py", "migrate", "--verbosity", "0")
    running = web(
        project,
        SENTRY_DSN="http://key@127.0.0.1:9/1" if observability == "sentry" else "",
        OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9" if observability == "opentelemetry" else "",
    )
    opened = {os.readlink(file) for file in Path(f"/proc/{running.process.pid}/fd").iterdir() if file.is_symlink()}

    assert not [name for name in opened if "sqlite3" in name]
    assert len([name for name in opened if name.startswith("socket:")]) == 1, "besides the port it listens on"
    assert len(list(Path(f"/proc/{running.process.pid}/task").iterdir())) == 1, "threads"


def test_a_process_sends_what_it_does_to_the_collector(bake, web, collector):
    running = web(
        bake(observability="opentelemetry"),
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_METRIC_EXPORT_INTERVAL="500",
        OTEL_BSP_SCHEDULE_DELAY="200",
    )

    running.until(lambda: any("healthz" in name for name, _ in collector.spans), "the request is a span")
    running.until(lambda: any(name.startswith("http.server") for name in collector.metrics), "and is counted")
