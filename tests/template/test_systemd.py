"""The units of a generated project on a real systemd: deployed by deploy.sh, sandboxed, stopped, killed, hung."""

import pytest

from tests.template.machine import Machine, machine_or_skip
from tests.template.marks import Marks, add_slow_task

pytestmark = [pytest.mark.template, pytest.mark.boot]

PYTHON = "/srv/shop/.venv/bin/python"
WORKER = "shop-worker@default.service"

ENVIRONMENT = """\
DJANGO_SETTINGS_MODULE=
SECRET_KEY=only-for-this-test-0123456789-abcdefghijklmnopqrstuvwxyz
ALLOWED_HOSTS=shop.example
BEHIND_PROXY=1
EMAIL_HOST=127.0.0.1
VAR_DIR=
"""

#: What differs from a real server: this Python, a log without journald.
DROP_IN = """\
[Service]
ProtectHome=no
Environment=PYTHONPATH={package}
StandardOutput=append:/var/log/%n.log
StandardError=append:/var/log/%n.log
"""

#: 120 seconds for a worker to start are more than a test waits.
SOON = """\
[Service]
ExecCondition=
ExecCondition=+/srv/shop/deploy/systemd/has-started.sh shop-worker@%i.service 40
"""


@pytest.fixture(scope="module")
def machine(bake, tmp_path_factory):
    machine_or_skip()
    folder = tmp_path_factory.mktemp("systemd")
    project = bake(deployment="systemd", observability="prometheus").copy(folder / "shop")
    add_slow_task(project)
    script = project.path / "deploy/systemd/deploy.sh"
    text = script.read_text()
    for made, instead in (
        (".venv/bin/python -m pip install", ": what is installed here instead of"),
        ('"${PYTHON:-python3.13}" -m venv .venv', "ln -s /srv/shop/.venv .venv"),
    ):
        assert text.count(made) == 1
        text = text.replace(made, instead)
    script.write_text(text)
    machine = Machine(folder, project)
    files = folder / "machine.files/etc"
    (files / "shop").mkdir()
    (files / "shop/env").write_text(ENVIRONMENT)
    add(files, "shop-.service.d/test.conf", DROP_IN.format(package=str(machine.package)))
    add(files, "shop-worker-health@.service.d/test.conf", SOON)
    try:
        machine.boot()
        yield machine
    finally:
        machine.end()


def add(files, name, text):
    file = files / "systemd/system" / name
    file.parent.mkdir(parents=True)
    file.write_text(text)


@pytest.fixture(scope="module")
def deployed(machine):
    # As rsync brings it from somebody with umask 077, whose number here is somebody else's.
    machine.run("chown", "-R", "1000:1000", "/srv/shop/config", "/srv/shop/deploy", "/srv/shop/ops")
    machine.run("chmod", "-R", "go=", "/srv/shop/config", "/srv/shop/deploy", "/srv/shop/ops")
    machine.shown = machine.run("/srv/shop/deploy/systemd/deploy.sh", "v1")
    return machine


@pytest.fixture
def marks(deployed):
    return Marks(deployed.path("/var/lib/shop/marks"))


def send(machine, seconds, *names):
    machine.run("/srv/shop/deploy/systemd/manage.sh", "shell", "--command", sending(seconds, names))


def sending(seconds, names):
    return f"from orders.tasks import slow\nfor name in {list(names)!r}: slow.delay(name, {seconds})"


def test_one_command_puts_everything_into_service(deployed):
    units = deployed.show("shop.target", "Wants").split()

    assert "Release v1 is in service." in deployed.shown
    assert len(units) == 8
    assert {unit: deployed.show(unit, "ActiveState") for unit in units} == dict.fromkeys(units, "active")
    assert {deployed.show(unit, "NRestarts") for unit in units} == {"0"}


def test_everything_runs_as_its_own_user_who_has_no_rights_and_a_file_of_its_own(deployed):
    pid = deployed.show(WORKER, "MainPID")
    status = dict(
        line.split(":\t", 1) for line in deployed.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line
    )

    assert deployed.run("ps", "-o", "user=", "-p", pid).strip() == "shop"
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) == 0
    assert deployed.run("stat", "--format=%a %U %G", "/etc/shop/env").split() == ["640", "root", "shop"]
    assert deployed.run("stat", "--format=%a %U", "/var/lib/shop").split() == ["700", "shop"]


def test_the_code_belongs_to_root_and_everybody_can_read_it(deployed):
    others = (
        "find",
        "/srv/shop",
        "-path",
        "/srv/shop/.venv",
        "-prune",
        "-o",
        "-path",
        "/srv/shop/staticfiles",
        "-prune",
    )

    assert deployed.run(*others, "!", "-user", "root", "-print") == ""
    assert deployed.run(*others, "!", "-perm", "-go=r", "-print") == ""
    assert deployed.run("stat", "--format=%a", "/srv/shop/ops/backup.sh", "/srv/shop/manage.py").split() == ["755"] * 2
    assert deployed.run("stat", "--format=%a", "/srv/shop/config/wsgi.py").strip() == "644"


def test_the_web_answers_and_is_ready(deployed):
    command = ("-m", "django_taskkit.observability.health", "web", "--url", "http://127.0.0.1:8000/readyz")

    assert "web" in deployed.run(PYTHON, *command, "--host", "shop.example")


def test_a_restart_lets_running_tasks_finish(deployed, marks):
    send(deployed, 4, "a", "b", "c")
    deployed.until(lambda: len(marks.names("began")) >= 2, "two tasks run")
    running = set(marks.names("began"))

    deployed.run("systemctl", "restart", WORKER)

    assert running <= set(marks.names("ended"))
    deployed.until(lambda: sorted(marks.names("ended")) == ["a", "b", "c"], "the others ran in the new worker")
    assert sorted(marks.names("began")) == ["a", "b", "c"]


def test_what_a_killed_worker_held_runs_again(deployed, marks):
    send(deployed, 4, "killed")
    deployed.until(lambda: "killed" in marks.names("began"), "it runs")

    deployed.run("systemctl", "kill", "--signal=KILL", WORKER)

    deployed.until(lambda: marks.names("ended").count("killed") == 1, "systemd has started another, which ended it")
    assert marks.names("began").count("killed") == 2


def test_a_worker_that_hangs_is_restarted(deployed, marks):
    pid = deployed.show(WORKER, "MainPID")
    deployed.run("kill", "-STOP", pid)

    deployed.until(lambda: deployed.show(WORKER, "MainPID") not in (pid, "0"), "its health restarts it", seconds=120)

    send(deployed, 0, "after")
    deployed.until(lambda: "after" in marks.names("ended"), "and it works")


def test_the_backup_is_made_by_its_service_and_readable_by_nobody_else(deployed):
    deployed.run("systemctl", "start", "shop-backup.service")

    [made] = deployed.run("ls", "/var/backups/shop").split()
    assert made.startswith("shop-2")
    assert deployed.run("stat", "--format=%a %U", f"/var/backups/shop/{made}").split() == ["700", "shop"]


RESTORE = "/srv/shop/deploy/systemd/restore.sh $(ls -d /var/backups/shop/*Z | tail -n 1) --force"


def test_no_backup_is_put_back_while_anything_runs(deployed):
    deployed.run("systemctl", "start", "shop-backup.service")

    said = deployed.run("bash", "-c", f"! {RESTORE} 2>&1")

    assert "Nothing was changed" in said
    assert WORKER in said


def test_a_release_that_fails_its_checks_stops_nothing(deployed):
    pid = deployed.show(WORKER, "MainPID")
    settings = deployed.path("/srv/shop/config/settings/base.py")
    whole = settings.read_text()
    settings.write_text(whole + "\nraise RuntimeError('a release that can not start')\n")

    refused = deployed.says("/srv/shop/deploy/systemd/deploy.sh", "v2")

    settings.write_text(whole)
    assert "in service" not in refused
    assert deployed.show(WORKER, "MainPID") == pid
    deployed.run("systemctl", "restart", WORKER)
    assert deployed.show(WORKER, "ActiveState") == "active"
    deployed.until(lambda: ready(deployed), "the old release starts")


def ready(deployed):
    health = ("-m", "django_taskkit.observability.health", "worker", "--name", "shop-default@$(uname -n)")
    return deployed.says(
        "bash", "-c", f"cd /srv/shop/current && runuser -u shop -- {PYTHON} {' '.join(health)} --dir /run/shop"
    )


def test_the_release_before_comes_back_with_one_command(deployed):
    deploy = "/srv/shop/deploy/systemd/deploy.sh"
    first = deployed.run("readlink", "/srv/shop/current")
    assert "Release v3 is in service." in deployed.run(deploy, "v3")
    assert deployed.run("readlink", "/srv/shop/current") != first

    assert "Release v1 is in service." in deployed.run(deploy, "--back")

    assert deployed.run("readlink", "/srv/shop/current") == first
    pid = deployed.show(WORKER, "MainPID")
    assert deployed.run("readlink", f"/proc/{pid}/cwd").endswith(first)


def test_a_stop_stops_all_of_it_in_good_order(deployed, marks):
    send(deployed, 3, "last")
    deployed.until(lambda: "last" in marks.names("began"), "it runs")

    deployed.run("systemctl", "stop", "shop.target")

    units = deployed.show("shop.target", "Wants").split()
    deployed.until(lambda: {deployed.show(unit, "ActiveState") for unit in units} == {"inactive"}, "all are stopped")
    assert {deployed.show(unit, "Result") for unit in units} == {"success"}
    assert "last" in marks.names("ended")
    timers = deployed.says("systemctl", "list-units", "--type=timer", "--state=active", "--plain", "--no-legend")
    assert {line.split()[0] for line in timers.splitlines()} == {"shop-backup.timer"}


def test_then_a_backup_is_put_back_with_the_environment_of_the_services(deployed):
    manage = "/srv/shop/deploy/systemd/manage.sh"
    deployed.run("systemctl", "start", "shop-backup.service")
    users = "from django.contrib.auth.models import User"
    deployed.run(manage, "shell", "--command", f"{users}; User.objects.create_user('later')")

    said = deployed.run("bash", "-c", RESTORE)

    assert "Restored." in said
    assert (
        deployed.run(manage, "shell", "--command", f"{users}; print('users:', User.objects.count())").split()[-1] == "0"
    )
    assert deployed.run("stat", "--format=%a %U", "/var/lib/shop/db.sqlite3").split() == ["600", "shop"]
