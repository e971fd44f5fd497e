"""Units, the file for supervisord and the Procfile, as their own validators and the project's settings see them."""

import configparser
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.template.conftest import tool

pytestmark = pytest.mark.template

LANES = ("customers", "reports", "geocoding", "default")

ANSWERS = {
    "least": {},
    "PostgreSQL, Redis, Flower, Prometheus": {
        "database": "postgresql",
        "broker": "redis",
        "flower": "yes",
        "observability": "prometheus",
    },
    "MariaDB, RabbitMQ": {"database": "mariadb", "broker": "rabbitmq", "project": "web_shop"},
}

#: Of 10, as `systemd-analyze security` counts; a service without any such setting has 9.6.
EXPOSURE = 2.0

PLANS = """
import django, json
django.setup()
from config.celery import app
from django_taskkit.routing.processes import worker_process
from django_taskkit.routing.workers import worker_plans
app.loader.import_default_modules()
workers = [worker_process(plan, "config") for plan in worker_plans(app)]
print(json.dumps({worker.name: worker.stop_grace for worker in workers}))
"""


@pytest.fixture(params=ANSWERS)
def answers(request):
    return ANSWERS[request.param]


@pytest.fixture
def systemd(bake, answers):
    return bake(deployment="systemd", **answers)


@pytest.fixture
def supervisor(bake, answers):
    return bake(deployment="supervisor", **answers)


def graces(shop):
    """What each lane's worker may need for its end, by lane."""
    shown = shop.run("-c", PLANS, DJANGO_SETTINGS_MODULE="config.settings.test")
    return {name.removeprefix("worker-"): grace for name, grace in json.loads(shown.splitlines()[-1]).items()}


def units(project):
    return sorted((project.path / "deploy/systemd").glob("*.service"))


def installed(project, folder):
    """A root with the units where systemd looks for them, and something at each path that they name."""
    system = folder / "etc/systemd/system"
    system.mkdir(parents=True)
    shutil.copytree("/usr/lib/systemd/system", folder / "usr/lib/systemd/system", symlinks=True)
    for source in (project.path / "deploy/systemd").iterdir():
        if source.suffix in (".service", ".timer", ".target"):
            shutil.copy(source, system)
        elif source.suffix == ".d":
            shutil.copytree(source, system / source.name)
    for unit in units(project):
        for path in re.findall(r"^Exec\w+=[+-]*(/\S+)", unit.read_text(), re.MULTILINE):
            program = folder / path.lstrip("/")
            program.parent.mkdir(parents=True, exist_ok=True)
            program.touch(mode=0o755)
    return [path.name for path in sorted(system.glob("*.*")) if path.suffix != ".d"]


def verify(folder, names):
    command = ["systemd-analyze", "verify", "--man=no", f"--root={folder}", *names]
    return subprocess.run(
        command, cwd=folder / "etc/systemd/system", capture_output=True, text=True, timeout=120
    ).stderr


def test_systemd_has_nothing_to_say_about_the_units(systemd, tmp_path):
    tool("systemd-analyze")

    assert verify(tmp_path, installed(systemd, tmp_path)) == ""


def test_systemd_would_say_what_is_wrong(bake, tmp_path):
    tool("systemd-analyze")
    names = installed(bake(deployment="systemd"), tmp_path)
    unit = tmp_path / "etc/systemd/system/shop-web.service"
    unit.write_text(unit.read_text().replace("KillMode=", "KilMode="))

    assert "KilMode" in verify(tmp_path, names)


def test_the_services_are_shut_off_from_the_machine(systemd, tmp_path):
    tool("systemd-analyze")
    installed(systemd, tmp_path)
    project = systemd.answers["project"]
    exposed = {}
    for unit in units(systemd):
        name = unit.name.replace("@.", "@x.")
        command = ["systemd-analyze", "security", "--offline=true", f"--root={tmp_path}", name]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120).stdout
        exposed[unit.name] = float(re.search(r"exposure level for \S+: ([\d.]+)", shown)[1])

    assert exposed.pop(f"{project}-restart@.service") <= 4.0  # root, who may restart units
    assert max(exposed.values()) <= EXPOSURE, exposed


def test_every_lane_has_a_worker_and_every_start_is_one_program_without_a_shell(systemd):
    project = systemd.answers["project"]
    target = systemd.text(f"deploy/systemd/{project}.target")
    script = systemd.text("deploy/systemd/deploy.sh")

    wanted = re.findall(r"^Wants=(\S+)$", target, re.MULTILINE)
    assert [name for name in wanted if "worker@" in name] == [f"{project}-worker@{lane}.service" for lane in LANES]
    assert f"for lane in {' '.join(LANES)}; do" in script
    for name in wanted:
        assert re.sub("@.*", "@.service", name) in {unit.name for unit in units(systemd)}
        start = re.sub("@.*", "@", name.removeprefix(f"{project}-"))
        assert f'restart "$project-{start}' in script, name
    for unit in units(systemd):
        for line in re.findall(r"^Exec\w+=(.*)$", unit.read_text(), re.MULTILINE):
            assert re.match(r"\+?/", line), line
            assert not re.search(r"\bsh -c|\|\||&&|;|[<>|]", line), line


def test_the_services_that_run_get_the_same_protection_and_all_variables(systemd):
    project = systemd.answers["project"]
    for name in re.findall(r"^Wants=(\S+)$", systemd.text(f"deploy/systemd/{project}.target"), re.MULTILINE):
        text = systemd.text(f"deploy/systemd/{re.sub('@.*', '@.service', name)}")
        for line in (
            "KillMode=mixed",
            "KillSignal=SIGTERM",
            "Restart=always",
            "StartLimitIntervalSec=0",
            f"User={project}",
            "ProtectSystem=strict",
            "UMask=0077",
            f"EnvironmentFile=/etc/{project}/env",
        ):
            assert f"\n{line}\n" in text, (name, line)


def test_a_stop_waits_for_the_longest_task_of_each_lane(bake, shop):
    needed = graces(shop)
    assert set(needed) == set(LANES)
    unit = bake(deployment="systemd").text("deploy/systemd/shop-worker@.service")
    config = programs(bake(deployment="supervisor"))

    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]) >= max(needed.values())
    for lane, seconds in needed.items():
        assert int(config[f"program:shop-worker-{lane}"]["stopwaitsecs"]) >= seconds


def programs(project):
    config = configparser.RawConfigParser(comment_prefixes=(";",))
    config.read(project.path / f"deploy/supervisor/{project.answers['project']}.conf")
    return config


def test_supervisor_signals_main_processes_alone(supervisor):
    project, config = supervisor.answers["project"], programs(supervisor)
    sections = [section for section in config.sections() if section.startswith("program:")]

    assert config.sections() == sections, "a group whose file has changed is stopped as a whole"
    assert {f"program:{project}-worker-{lane}" for lane in LANES} <= set(sections)
    for section in sections:
        options = config[section]
        assert (options["stopasgroup"], options["killasgroup"], options["stopsignal"]) == ("false", "true", "TERM")
        assert shlex.split(options["command"])[0].startswith(f"/srv/{project}/.venv/bin/")
        assert not re.search(r"\bsh -c| [;#]", options["command"])


def test_the_procfile_is_valid_and_becomes_what_it_starts(shop):
    shop.execute(tool("honcho"), "check")
    lines = [line.split(": ", 1) for line in shop.text("Procfile").splitlines() if not line.startswith("#")]
    commands = dict(lines)

    assert list(commands) == ["release", "web", *(f"worker-{lane}" for lane in LANES), "beat", "relay"]
    for name, command in lines[1:]:
        assert command.startswith("exec "), name
    for lane in LANES:
        assert commands[f"worker-{lane}"] == f"exec env REMAP_SIGTERM=SIGQUIT python manage.py taskkit worker {lane}"


@pytest.mark.parametrize("deployment", ["systemd", "supervisor"])
@pytest.mark.parametrize("name", ANSWERS)
def test_scripts_have_no_known_faults(bake, deployment, name):
    project = bake(deployment=deployment, **ANSWERS[name])
    scripts = sorted(str(path) for path in project.path.rglob("*.sh") if ".venv" not in path.parts)

    assert {Path(script).name for script in scripts} >= {"backup.sh", "restore.sh"}
    assert project.execute(tool("shellcheck"), *scripts) == ""
    assert all(Path(script).stat().st_mode & 0o111 for script in scripts)


@pytest.mark.parametrize("deployment", ["systemd", "supervisor"])
@pytest.mark.parametrize("flower", ["no", "yes"])
def test_the_front_door_is_valid_and_keeps_what_is_inside(bake, tmp_path, deployment, flower):
    project = bake(deployment=deployment, broker="redis", flower=flower)
    file = str(project.path / f"deploy/{deployment}/Caddyfile")
    home = {"SITE_HOST": "shop.example", "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}

    shown = json.loads(
        project.execute(tool("caddy"), "adapt", "--config", file, "--adapter", "caddyfile", **home).splitlines()[-1]
    )

    hosts = [route["match"][0]["host"][0] for route in shown["apps"]["http"]["servers"]["srv0"]["routes"]]
    assert sorted(hosts) == ["flower.shop.example", "shop.example"][0 if flower == "yes" else 1 :]
    text = Path(file).read_text()
    assert text.count("@inside path /metrics") == len(hosts)
    assert project.execute(tool("caddy"), "fmt", file) == text


def test_flower_does_not_start_without_a_password(bake, tmp_path):
    project = bake(broker="redis", flower="yes").copy(tmp_path / "shop")
    (project.path / ".env").unlink()
    command = ("-m", "celery", "-A", "config", "flower", "--address=127.0.0.1", "--port=0")

    with pytest.raises(AssertionError, match="FLOWER_BASIC_AUTH is empty: give Flower a name and a password"):
        project.run(*command, DJANGO_SETTINGS_MODULE="config.settings.test")

    assert "flowerconfig.py" not in {path.name for path in bake(broker="redis").files}
