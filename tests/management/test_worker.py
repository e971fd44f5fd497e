"""taskkit worker: a process that turns into the worker of a lane."""

import os
import shlex
import signal
import subprocess
import sys
import time

import pytest

CELERY = """
from celery import Celery

app = Celery("shop")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
"""

SETTINGS = """
from pathlib import Path

from django_taskkit.routing import Lane, lanes

SECRET_KEY = "x"
USE_TZ = True
INSTALLED_APPS = ["django_taskkit", "shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
CELERY_BROKER_URL = "filesystem://"
CELERY_BROKER_TRANSPORT = "django_taskkit.transports.filesystem:Transport"
CELERY_TASK_TIME_LIMIT = 60
CELERY_TASK_ACKS_LATE = True
TRANSPORT_OPTIONS = {"folder": "broker", "polling_interval": 0.1}
TASKKIT = {name: str(Path.cwd() / name.lower()) for name in ("HEALTH_DIR", "SPOOL_DIR")}
"""

LANES = """
globals().update(
    lanes(
        broker=CELERY_BROKER_URL,
        namespace="CELERY_",
        prefix="shop.",
        transport_options=TRANSPORT_OPTIONS,
        default=Lane(concurrency=1),
        reports=Lane(concurrency=1, prefetch=1, time_limit=330),
        mail=Lane(pool="threads", concurrency=2),
    )
)
"""

NO_LANES = "CELERY_BROKER_TRANSPORT_OPTIONS = TRANSPORT_OPTIONS\n"

TASKS = """
import time
from pathlib import Path

from celery import shared_task


@shared_task
def take_a_while():
    Path("started").touch()
    while not Path("go").exists():
        time.sleep(0.02)
    Path("done").touch()
"""

MANAGE = """
import os
import sys

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")

from django.core.management import execute_from_command_line

execute_from_command_line(sys.argv)
"""

SEND = "import shop, shop.tasks; shop.tasks.take_a_while.delay()"


class Project:
    """A project in a folder of its own, with a broker that is a folder as well."""

    def __init__(self, path, lanes):
        self.path = path
        (path / "manage.py").write_text(MANAGE)
        package = path / "shop"
        package.mkdir()
        for name, text in {
            "__init__": "from shop.celery import app as celery_app\n",
            "celery": CELERY,
            "settings": SETTINGS + lanes,
            "tasks": TASKS,
        }.items():
            (package / f"{name}.py").write_text(text)
        self.environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings"}

    def worker(self, *arguments, **more):
        return subprocess.run(
            [sys.executable, self.path / "manage.py", "taskkit", "worker", *arguments],
            **{"cwd": self.path, "env": self.environment, "capture_output": True, "text": True, **more},
        )

    def printed(self, *arguments, **more):
        done = self.worker("--print", *arguments, **more)
        assert done.returncode == 0, done.stderr
        return shlex.split(done.stdout)


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path, LANES)


def test_the_command_line_is_that_of_the_lanes_worker(project):
    line = project.printed("reports")

    assert line[:6] == [sys.executable, "-m", "celery", "-A", "shop", "worker"]
    assert {"--hostname=shop-reports@%h", "--queues=shop.reports", "--concurrency=1", "task.time_limit=330"} <= set(
        line
    )


def test_what_stands_behind_two_dashes_is_celerys_and_comes_last(project):
    line = project.printed("reports", "--cores", "4", "--", "--loglevel=DEBUG", "task.time_limit=5")

    assert line[-3:] == ["task.time_limit=330", "--loglevel=DEBUG", "task.time_limit=5"]


def test_a_second_worker_on_one_host_has_a_name_of_its_own(project):
    assert "--hostname=shop-mail-2@%h" in project.printed("mail", "--suffix", "2")

    refused = project.worker("mail", "--suffix", "a b")
    assert (refused.returncode, "--suffix is 'a b'" in refused.stderr) == (2, True)


def test_the_size_is_for_the_cores_that_are_named(project):
    (project.path / "shop" / "settings.py").write_text(
        SETTINGS + LANES.replace('pool="threads", concurrency=2', 'work="io"')
    )

    assert "--concurrency=16" in project.printed("mail", "--cores", "8")


def test_the_app_may_be_named(project):
    assert project.printed("mail", "--app", "shop.celery:app")[3:5] == ["-A", "shop.celery:app"]


def test_a_lane_that_is_not_there_is_refused_with_those_that_are(project):
    refused = project.worker("mial")

    assert refused.returncode == 1
    assert "There is no lane 'mial'; there are default, reports, mail." in refused.stderr


@pytest.mark.parametrize("arguments", [(), ("--", "--loglevel=DEBUG")])
def test_in_a_project_with_lanes_one_has_to_be_named(project, arguments):
    refused = project.worker(*arguments)

    assert refused.returncode == 2
    assert "Say which lane's worker; there are default, reports, mail." in refused.stderr


def test_a_project_without_lanes_has_one_worker_and_no_name_for_it(tmp_path):
    project = Project(tmp_path, NO_LANES)

    assert "--queues=celery" in project.printed()
    assert "this project has none: leave the name out" in project.worker("reports").stderr


def test_the_modules_beside_manage_are_found_from_any_folder(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    line = project.printed("reports", "--pythonpath", "/srv/more", cwd=elsewhere)

    assert line[0] == "env"
    assert line[1].split(os.pathsep)[:2] == ["PYTHONPATH=/srv/more", str(project.path)]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="this Python has no safe path")
def test_the_modules_beside_manage_are_found_where_python_does_not_look_into_this_folder(project):
    manage = project.path / "manage.py"
    manage.write_text(f"import sys\nsys.path.insert(0, {str(project.path)!r})\n{MANAGE}")
    environment = {**project.environment, "PYTHONSAFEPATH": "1"}

    line = project.printed("reports", env=environment)

    assert line[1].split(os.pathsep)[0] == f"PYTHONPATH={project.path}"
    shown = subprocess.run(
        [*line[: line.index("worker")], "report"],
        cwd=project.path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (shown.returncode, "shop" in shown.stdout) == (0, True), shown.stderr


# --- running -----------------------------------------------------------------------------------------------


@pytest.fixture
def started(project):
    """Start a worker with these arguments, and wait until it is ready."""
    log = project.path / "log"
    running = []

    def start(*arguments):
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "taskkit", "worker", *arguments],
                cwd=project.path,
                env=project.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        running.append(process)
        until(lambda: " ready." in log.read_text(), process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(condition, process):
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, "the worker has ended"
        assert time.monotonic() < deadline, "not so after a minute"
        time.sleep(0.02)


def command_line_of(pid):
    shown = subprocess.run(["ps", "-ww", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return shown.stdout.strip()


def test_the_process_is_celerys_and_a_stop_lets_its_task_finish(project, started):
    worker = started("default", "--", "--loglevel=DEBUG")
    command_line = command_line_of(worker.pid)
    assert " -m celery -A shop worker " in command_line
    assert command_line.endswith(" --queues=shop.default --pool=prefork --concurrency=1 --loglevel=DEBUG")
    subprocess.run([sys.executable, "-c", SEND], cwd=project.path, env=project.environment, check=True)
    until((project.path / "started").exists, worker)

    worker.send_signal(signal.SIGTERM)
    until(lambda: "Warm shutdown" in (project.path / "log").read_text(), worker)
    (project.path / "go").touch()

    assert worker.wait(timeout=30) == 0
    assert (project.path / "done").exists()


def test_what_the_lane_asks_for_and_does_not_get_is_said_before_it_starts(project, started):
    started("mail")

    said = (project.path / "log").read_text()  # with Python's own warnings before it, in development mode
    assert said.index("mail: the pool threads ignores time limits") < said.index(" ready.")
