"""A real supervisord with the file of a generated project: everything runs, and a stop loses nothing."""

import configparser
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.template.conftest import unavailable
from tests.template.marks import SEND, Marks, add_slow_task

pytestmark = [pytest.mark.template, pytest.mark.boot]

LANES = ("customers", "reports", "geocoding", "default")
PROGRAMS = {f"shop-{name}" for name in ("web", "beat", "relay", *(f"worker-{lane}" for lane in LANES))}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Supervisor:
    """supervisord in the foreground, with the rendered file for paths, port and user of this machine."""

    def __init__(self, folder, project, only=PROGRAMS, **changes):
        self.folder, self.project = folder, project
        self.marks = Marks(project.path / "var" / "marks")
        self.environment = project.environment(DJANGO_SETTINGS_MODULE="config.settings.development")
        config = configparser.RawConfigParser(comment_prefixes=(";",))
        config.read(project.path / "deploy/supervisor/shop.conf")
        for section in list(config.sections()):
            if section.startswith("program:") and section.removeprefix("program:") not in only:
                config.remove_section(section)
            elif section.startswith("program:"):
                options = config[section]
                del options["user"]
                options.update(changes)
                command = options["command"].replace("/srv/shop/.venv/bin/python", sys.executable)
                command = command.replace("/srv/shop/.venv/bin/gunicorn", f"{Path(sys.executable).parent}/gunicorn")
                command = command.replace("config.wsgi", f"--bind 127.0.0.1:{free_port()} config.wsgi")
                options.update(command=command, directory=str(project.path))
                options["stdout_logfile"] = f"{folder}/{section.removeprefix('program:')}.log"
        config["supervisord"] = {
            "logfile": f"{folder}/supervisord.log",
            "pidfile": f"{folder}/pid",
            "childlogdir": str(folder),
        }
        config["unix_http_server"] = {"file": f"{folder}/s"}
        config["supervisorctl"] = {"serverurl": f"unix://{folder}/s"}
        config["rpcinterface:supervisor"] = {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        }
        self.file = folder / "supervisord.conf"
        with self.file.open("w") as file:
            config.write(file)
        self.process = subprocess.Popen(
            [shutil.which("supervisord"), "--nodaemon", "--configuration", self.file],
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
        )

    def control(self, *command):
        called = [shutil.which("supervisorctl"), "--configuration", self.file, *command]
        return subprocess.run(called, capture_output=True, text=True, timeout=400).stdout

    def states(self):
        lines = [line.split() for line in self.control("status").splitlines()]
        return {words[0]: words[1] for words in lines if len(words) > 1}

    def logs(self):
        return "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in self.folder.glob("*.log"))

    def until(self, fact, what, seconds=240):
        deadline = time.monotonic() + seconds
        while not fact():
            assert self.process.poll() is None, self.logs()
            assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}\n{self.logs()}"
            time.sleep(0.2)

    def ready(self, lane):
        log = self.folder / f"shop-worker-{lane}.log"
        return log.exists() and f"shop-{lane}@{socket.gethostname()} ready" in log.read_text()

    def send(self, seconds, *names):
        settings = "config.settings.development"
        self.project.run("-c", SEND, str(seconds), *names, DJANGO_SETTINGS_MODULE=settings)

    def end(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout=400)


@pytest.fixture(scope="module")
def project(bake, tmp_path_factory):
    if shutil.which("supervisord") is None:
        unavailable("supervisord is not installed")
    project = bake(deployment="supervisor").copy(tmp_path_factory.mktemp("supervisor") / "shop")
    add_slow_task(project)
    for command in (("migrate", "--verbosity", "0"), ("createcachetable",)):
        project.run("manage.py", *command)
    return project


@pytest.fixture
def supervise(project, tmp_path):
    started = []

    def start(**options):
        started.append(Supervisor(tmp_path, project, **options))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.end()
    (project.path / "var" / "marks").unlink(missing_ok=True)


def test_everything_runs_and_a_stop_in_the_middle_of_tasks_loses_none(supervise):
    supervisor = supervise()
    supervisor.until(lambda: supervisor.states() == dict.fromkeys(PROGRAMS, "RUNNING"), "all programs run")
    supervisor.until(lambda: all(map(supervisor.ready, LANES)), "the workers are ready")
    supervisor.send(4, "a", "b", "c")
    supervisor.until(lambda: len(supervisor.marks.names("began")) >= 2, "two tasks run")
    running = set(supervisor.marks.names("began"))

    supervisor.control("restart", "shop-worker-default")

    assert running <= set(supervisor.marks.names("ended"))
    supervisor.until(lambda: sorted(supervisor.marks.names("ended")) == ["a", "b", "c"], "the next one does the third")
    assert sorted(supervisor.marks.names("began")) == ["a", "b", "c"]
    supervisor.end()
    assert "killing" not in (supervisor.folder / "supervisord.log").read_text()


def restarts(project, *programs):
    """What deploy.sh does last, to these programs."""
    script = project.text("deploy/supervisor/deploy.sh")
    begin = 'set -euo pipefail\nrefuse() { echo "$1"; exit 1; }\n'
    chosen = f"project=shop\nprograms=({' '.join(programs)})\n"
    return begin + chosen + script[script.index("# Workers before the web") :]


def test_a_release_replaces_what_has_changed_and_restarts_the_others_one_after_the_other(supervise, project, tmp_path):
    programs = ["shop-relay", "shop-beat"]
    supervisor = supervise(only=set(programs))
    supervisor.until(lambda: supervisor.states() == dict.fromkeys(programs, "RUNNING"), "both run")
    text = supervisor.file.read_text()
    supervisor.file.write_text(text.replace("[program:shop-relay]", '[program:shop-relay]\nenvironment = NEW="1"'))
    (tmp_path / "supervisorctl").write_text(
        f'#!/bin/sh\nexec {shutil.which("supervisorctl")} --configuration {supervisor.file} "$@"\n'
    )
    (tmp_path / "supervisorctl").chmod(0o755)

    done = subprocess.run(
        ["bash", "-c", restarts(project, "relay", "beat")],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=200,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[:2] == programs
    log = (tmp_path / "supervisord.log").read_text()
    happened = re.findall(r"(spawned|stopped): '?(shop-\w+)", log)
    assert sorted(happened[:2]) == [("spawned", "shop-beat"), ("spawned", "shop-relay")]
    assert happened[2:] == [(what, name) for name in programs for what in ("stopped", "spawned")]


def test_with_stopasgroup_as_others_have_it_tasks_die(supervise):
    supervisor = supervise(only={"shop-worker-default"}, stopasgroup="true")
    supervisor.until(lambda: supervisor.ready("default"), "the worker is ready")
    supervisor.send(5, "a", "b")
    supervisor.until(lambda: len(supervisor.marks.names("began")) == 2, "two tasks run")

    supervisor.control("stop", "shop-worker-default")

    assert supervisor.marks.names("ended") == []
