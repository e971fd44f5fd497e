"""A worker of a lane is stopped in the midst of its tasks, by TERM and by supervisord, and none is lost."""

import shutil
import time

import harness
import pytest
from lane_project import projects

from django_taskkit.routing import Lane


@pytest.fixture
def project(broker, tmp_path):
    with projects(broker, tmp_path) as make:
        yield make


@pytest.mark.parametrize(
    ("broker", "pool"),
    [("redis", "prefork"), ("redis", "threads"), ("redis", "gevent"), ("filesystem", "prefork")],
    indirect=["broker"],
)
def test_a_stop_in_the_midst_of_tasks_loses_none_and_runs_none_twice(project, pool):
    project = project(default=Lane(pool=pool, concurrency=2, prefetch=2))
    project.broker.settings.update(task_time_limit=30)
    project.start()
    for number in range(6):
        project.send("wait_for", "default", f"task{number}", "go")
    project.wait_until(lambda: len(project.noted("started")) == 2, "two tasks run")

    project.term("default")
    project.wait_until(lambda: "Warm shutdown" in (project.folder / "default.log").read_text(), "the stop has begun")
    (project.folder / "go").touch()
    code = project.processes["default"].wait(project.plans["default"].stop_grace)

    assert code == 0
    assert project.noted("finished") == project.noted("started")
    if pool == "prefork":  # the others go on with what they have taken ahead
        assert len(project.noted("finished")) < 6
    project.start()
    project.wait_until(lambda: len(project.noted("finished")) == 6, "the next worker has run the others")
    assert set(project.noted("started").values()) == set(project.noted("finished").values()) == {1}


def test_supervisord_stops_a_worker_in_the_midst_of_a_task_and_the_task_finishes(project):
    supervisord = shutil.which("supervisord")
    if supervisord is None:
        harness.unavailable("supervisord is not installed")
    project = project(default=Lane(concurrency=2))
    project.broker.settings.update(task_time_limit=60)
    (text,) = project.files("supervisor", environment={"ODD": "100% $HOME"}).values()
    assert "stopwaitsecs=75" in text
    conf = project.folder / "supervisord.conf"
    head = f"[supervisord]\nnodaemon=true\nlogfile={project.folder}/supervisord.log\n"
    conf.write_text(f"{head}pidfile={project.folder}/supervisord.pid\nchildlogdir={project.folder}\n\n{text}")
    project.run("supervisord", supervisord, "-c", str(conf))
    for number in range(2):
        project.send("wait_for", "default", f"task{number}", "go")
    project.wait_until(lambda: project.log("supervisord") and len(project.noted("started")) == 2, "two tasks run")

    project.term("supervisord")
    project.wait_until(lambda: "waiting for" in (project.folder / "supervisord.log").read_text(), "it is stopping")
    # A group that had got TERM would be dead within the second that this takes; so says the broken configuration.
    time.sleep(1)
    (project.folder / "go").touch()
    project.processes["supervisord"].wait(75)

    assert project.noted("finished") == {"task0": 1, "task1": 1}
    assert "SIGKILL" not in (project.folder / "supervisord.log").read_text()
