"""The files for what runs the processes: read back by what will read them, wherever it is installed."""

import json
import os
import shlex
import shutil
import subprocess

import pytest
import yaml

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import formats
from django_taskkit.routing.processes import Place, Process, beat_process, relay_process

PYTHON = "/srv/shop/.venv/bin/python"
WORKER = Process(
    name="worker-mail",
    arguments=("-m", "celery", "-A", "shop", "worker", "--hostname=mail@%h", "--queues=mail"),
    stop_grace=75,
    role="worker",
    queues=("mail",),
    why=("concurrency 4: a process for each of 4 cores",),
    warnings=("nothing ends a task that hangs",),
)
# Every word that a shell, systemd, supervisord, Compose or Kubernetes might read as something else than itself.
ODD = (
    "a b",
    "100%",
    "%h",
    "$HOME",
    "${HOME}",
    "$(HOME)",
    "it's",
    'say "x"',
    "back\\slash",
    "a ;b",
    "a #b",
    "*",
    "yes",
    "é",
)
ODD_WORKER = Process(name="worker-odd", arguments=ODD, stop_grace=1, role="worker")
PROCESSES = (WORKER, beat_process("shop"), relay_process())


def place(name, **more):
    outside = {} if formats.runs_in_image(name) else {"directory": "/srv/shop"}
    python = "python" if formats.runs_in_image(name) else PYTHON
    given = {"project": "shop", "python": python, "environment": {"DJANGO_SETTINGS_MODULE": "shop.settings"}}
    return Place(**{**given, **outside, **more})


def written(name, *processes, **more):
    return formats.files(name, processes or PROCESSES, place(name, **more))


def only(name, *processes, **more):
    (text,) = written(name, *processes, **more).values()
    return text


def validator(program):
    """The program, or a skipped test; where CI is set what .ci/run installs has to be there."""
    path = shutil.which(program)
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{program} is not installed")
    return path


def ran(*command):
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=60, check=False)


def put(files, folder):
    for file, text in files.items():
        (folder / file).write_text(text, encoding="utf-8")
    return sorted(folder.iterdir())


# --- what all have in common -------------------------------------------------------------------------------


def test_a_format_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigurationError, match=r"There is no format 'upstart'; there are shell, procfile"):
        formats.files("upstart", PROCESSES, place("shell"))


@pytest.mark.parametrize("name", formats.FORMATS)
def test_the_same_is_written_each_time_with_the_reasons_and_warnings(name):
    files = written(name)

    text = "\n".join(files.values())
    assert files == written(name)
    assert "a process for each of 4 cores" in text
    assert "WARNING: nothing ends a task that hangs" in text
    assert "of several, one sends and the others stand by" in text


@pytest.mark.parametrize("name", formats.FORMATS)
def test_a_task_name_in_a_reason_starts_no_line_of_its_own(name):
    process = Process(name="worker-x", arguments=("-c", "pass"), stop_grace=1, role="worker", why=("a\nUser=root",))

    assert not [line for text in written(name, process).values() for line in text.splitlines() if line == "User=root"]


@pytest.mark.parametrize("value", ["a\nUser=root", "a\x1b[2J", "a\x00"])
def test_a_place_takes_nothing_that_cant_be_printed(value):
    with pytest.raises(ConfigurationError, match="leave out what can't be printed"):
        place("systemd", user=value)


@pytest.mark.parametrize(
    ("name", "what"),
    [("shell", "user"), ("procfile", "user"), ("k8s", "user"), ("supervisor", "env_file"), ("systemd", "image")],
)
def test_what_a_format_has_no_word_for_is_refused_and_not_forgotten(name, what):
    with pytest.raises(ConfigurationError, match=f"{what} is 'x', and the format {name} has no word for it"):
        written(name, **{what: "x"})


# --- shell -------------------------------------------------------------------------------------------------


def test_a_script_becomes_the_worker_and_no_shell_stays_in_between(tmp_path):
    """Run for real: the process is what the script was, by its id, with each word as it was meant."""
    code = "import json, os, sys; print(json.dumps([os.getpid(), os.getcwd(), os.environ['X'], sys.argv[1:]]))"
    process = Process(name="worker-odd", arguments=("-c", code, *ODD), stop_grace=1, role="worker")
    folder = tmp_path / "it's a $HOME"
    folder.mkdir()
    script = only(
        "shell", process, python=shutil.which("python3"), directory=str(folder), environment={"X": "a 'b' $c"}
    )

    started = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, text=True)
    shown = started.communicate(timeout=60)[0]

    assert json.loads(shown) == [started.pid, str(folder), "a 'b' $c", list(ODD)]


def test_shellcheck_and_bash_have_nothing_to_say(tmp_path):
    shellcheck = validator("shellcheck")
    scripts = put(written("shell", *PROCESSES, ODD_WORKER), tmp_path)

    for script in scripts:
        done = ran("bash", "-n", script)
        assert (done.returncode, done.stderr) == (0, "")
    # SC2016: what is in single quotes is not expanded, which is what they are for.
    done = ran(shellcheck, "--exclude=SC2016", *scripts)
    assert (done.returncode, done.stdout) == (0, "")


# --- Procfile ----------------------------------------------------------------------------------------------


def lines_of(procfile):
    return dict(line.split(": ", 1) for line in procfile.splitlines() if line and not line.startswith("#"))


def test_a_procfile_has_a_line_for_each_process_which_a_shell_becomes():
    lines = lines_of(only("procfile"))

    assert list(lines) == ["worker-mail", "beat", "relay"]
    assert lines["relay"] == "exec env DJANGO_SETTINGS_MODULE=shop.settings python manage.py taskkit relay"
    assert shlex.split(lines["worker-mail"])[3:] == ["python", *WORKER.arguments]


def test_a_procfile_says_what_it_cant_say():
    assert "# The longest stop takes 75 s." in only("procfile")


def test_a_shell_reads_each_word_of_a_procfile_as_it_was_meant():
    code = "import json, sys; print(json.dumps(sys.argv[1:]))"
    process = Process(name="worker-odd", arguments=("-c", code, *ODD), stop_grace=1, role="worker")

    line = lines_of(only("procfile", process, python=shutil.which("python3")))["worker-odd"]

    assert json.loads(ran("sh", "-c", line).stdout) == list(ODD)


# --- systemd -----------------------------------------------------------------------------------------------


def units(**more):
    """The settings of each unit, by its name."""
    return {
        file: dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
        for file, text in written("systemd", **more).items()
    }


def test_a_unit_stops_the_main_process_alone_and_waits_for_the_longest_task():
    service = units(user="shop")["shop-worker-mail.service"]

    assert service["KillMode"] == "mixed"
    assert service["TimeoutStopSec"] == "75"
    assert service["Restart"] == "always"
    assert service["User"] == "shop"
    assert service["ExecStart"] == f"{PYTHON} -m celery -A shop worker --hostname=mail@%%h --queues=mail"


def test_the_units_belong_to_a_target():
    found = units()

    assert set(found) == {f"shop-{name}.service" for name in ("worker-mail", "beat", "relay")} | {"shop.target"}
    assert {unit["PartOf"] for unit in found.values() if "ExecStart" in unit} == {"shop.target"}


@pytest.mark.parametrize(
    "wrong", [{"python": "python"}, {"directory": "."}, {"env_file": ".env"}, {"env_file": "-.env"}]
)
def test_systemd_wants_absolute_paths(wrong):
    with pytest.raises(ConfigurationError, match="systemd wants an absolute path"):
        written("systemd", **wrong)


def test_a_file_of_variables_for_systemd_may_be_missing():
    assert units(env_file="-/etc/shop.env")["shop-beat.service"]["EnvironmentFile"] == "-/etc/shop.env"


def test_systemd_has_nothing_to_say(tmp_path):
    analyze = validator("systemd-analyze")
    folder = tmp_path / "units"
    folder.mkdir()
    # It looks whether the program is there.
    more = {
        "python": "/bin/true",
        "user": "root",
        "env_file": "/etc/shop.env",
        "environment": {"X": "100% $x \"y\" 'z'"},
    }
    files = put(written("systemd", *PROCESSES, ODD_WORKER, **more), folder)

    done = ran(analyze, "verify", "--man=no", *files)

    assert done.stderr == ""


def test_systemd_would_say_what_is_wrong(tmp_path):
    """That it is quiet about the units above means something."""
    analyze = validator("systemd-analyze")
    unit = tmp_path / "shop.service"
    unit.write_text("[Service]\nType=exec\nExecStart=/bin/true\nKillMode=some\n")

    assert "kill mode" in ran(analyze, "verify", "--man=no", unit).stderr


# --- Compose and Kubernetes --------------------------------------------------------------------------------


def test_a_service_has_the_time_that_a_stop_takes_and_is_asked_how_it_is():
    services = yaml.safe_load(only("compose", image="shop:1", env_file=".env", user="10001:10001"))["services"]

    assert list(services) == ["worker-mail", "beat", "relay"]
    assert services["worker-mail"] == {
        "image": "shop:1",
        "command": ["python", *WORKER.arguments],
        "user": "10001:10001",
        "env_file": [".env"],
        "environment": {"DJANGO_SETTINGS_MODULE": "shop.settings"},
        "restart": "unless-stopped",
        "init": True,
        "stop_signal": "SIGTERM",
        "stop_grace_period": "75s",
        "healthcheck": {
            "test": ["CMD", "python", "-m", "django_taskkit.observability.health", "worker", "--queue=mail"],
            "interval": "30s",
            "timeout": "20s",
            "retries": 3,
            "start_period": "60s",
        },
    }
    assert services["beat"]["deploy"] == {"replicas": 1}


def test_compose_replaces_no_variables_in_what_was_meant_as_it_is():
    command = yaml.safe_load(only("compose", ODD_WORKER))["services"]["worker-odd"]["command"]

    assert command == ["python", *(word.replace("$", "$$") for word in ODD)]


def test_a_deployment_has_the_time_that_a_stop_takes_and_no_shell_in_between():
    worker, beat, relay = yaml.safe_load_all(only("k8s", image="shop:1"))

    pod = worker["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (worker["apiVersion"], worker["kind"], worker["metadata"]["name"]) == (
        "apps/v1",
        "Deployment",
        "shop-worker-mail",
    )
    assert pod["terminationGracePeriodSeconds"] == 75
    assert container["command"] == ["python", *WORKER.arguments]
    assert container["image"] == "shop:1"
    assert container["env"] == [{"name": "DJANGO_SETTINGS_MODULE", "value": "shop.settings"}]
    probe = ["python", "-m", "django_taskkit.observability.health", "worker"]
    assert container["readinessProbe"]["exec"]["command"] == [*probe, "--queue=mail"]
    assert container["livenessProbe"]["exec"]["command"] == [*probe, "--alive"]
    assert [one["spec"].get("strategy") for one in (worker, beat, relay)] == [None, {"type": "Recreate"}, None]
    assert [one["spec"]["replicas"] for one in (worker, beat, relay)] == [1, 1, 1]
    for one in (worker, beat, relay):
        selected = one["spec"]["selector"]["matchLabels"]
        assert selected.items() <= one["spec"]["template"]["metadata"]["labels"].items()


def test_kubernetes_replaces_no_variables_in_what_was_meant_as_it_is():
    (deployment,) = yaml.safe_load_all(only("k8s", ODD_WORKER))

    command = deployment["spec"]["template"]["spec"]["containers"][0]["command"]
    assert command == ["python", *(word.replace("$(", "$$(") for word in ODD)]


def test_names_for_kubernetes_are_small_and_not_too_long():
    upper = Process(name="worker-Mail_Out", arguments=("x",), stop_grace=1, role="worker")
    long = Process(name="worker-" + "x" * 60, arguments=("x",), stop_grace=1, role="worker")

    (deployment,) = yaml.safe_load_all(only("k8s", upper, project="My_Shop"))

    assert deployment["metadata"]["name"] == "my-shop-worker-mail-out"
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "my_shop"
    with pytest.raises(ConfigurationError, match="has 72 characters, and Kubernetes takes 63"):
        written("k8s", long)


def test_an_image_that_is_not_named_has_no_capitals_and_one_that_is_stays_as_it_is():
    images = [
        service["image"]
        for more in ({}, {"image": "hub/Shop"})
        for service in yaml.safe_load(only("compose", WORKER, project="My_Shop", **more))["services"].values()
    ]

    assert images == ["my_shop", "hub/Shop"]


@pytest.mark.parametrize("name", ["compose", "k8s"])
@pytest.mark.parametrize("value", ["yes", "1.0", "0x1f", "~", "null", "12:30", "a: b", "- a", "é", "#x", ""])
def test_text_stays_text_in_yaml(name, value):
    loaded = list(yaml.safe_load_all(only(name, WORKER, environment={"X": value})))

    found = json.dumps(loaded, ensure_ascii=False)
    assert json.dumps(value, ensure_ascii=False) in found


# --- supervisord -------------------------------------------------------------------------------------------


def test_supervisord_stops_the_main_process_alone_and_kills_all():
    text = only("supervisor", user="shop")

    for line in ("stopasgroup=false", "killasgroup=true", "stopwaitsecs=75", "stopsignal=TERM", "autorestart=true"):
        assert line in text.splitlines()
    assert "user=shop" in text.splitlines()
    assert "programs=shop-worker-mail,shop-beat,shop-relay" in text.splitlines()


@pytest.mark.parametrize("value", ["/srv/a ;b", "/srv/a #b"])
def test_a_folder_that_supervisord_would_read_as_a_comment_is_refused(value):
    with pytest.raises(ConfigurationError, match="are comments"):
        written("supervisor", directory=value)
