"""taskkit workers: the files that start what a project has to start."""

import os
import stat
import subprocess
import sys

import pytest
import yaml
from celery import Celery

from django_taskkit.management import workers
from django_taskkit.routing import Lane, lanes
from tests.celery_app import app as tests_app
from tests.management.test_taskkit import run
from tests.own_apps import current_app_kept


@pytest.fixture
def said(capsys):
    """What the verb prints, on both streams; it must end with this exit code."""

    def said(*arguments, code=0):
        assert run("workers", *arguments) == code
        return capsys.readouterr()

    return said


@pytest.fixture(autouse=True)
def lanes_of_the_project(settings, monkeypatch):
    mail = Lane(pool="threads", queue="mail.out")
    made = lanes(broker="memory://", namespace="", default=Lane(concurrency=2), mail=mail)
    settings.TASKKIT_LANES = made.pop("TASKKIT_LANES")
    for name, value in {**made, "task_time_limit": 60}.items():
        monkeypatch.setitem(tests_app.conf, name, value)
    monkeypatch.setitem(vars(tests_app), "amqp", type(tests_app.amqp)(tests_app))  # an older one may know older queues
    with current_app_kept():  # one of a live test's, which has been imported
        tests_app.set_current()
        tests_app.set_default()
        yield


def services(text):
    return yaml.safe_load(text)["services"]


def test_there_is_a_process_for_each_lane_and_the_relay(said):
    assert list(services(said("--format", "compose").out)) == ["worker-default", "worker-mail", "relay"]


def test_beat_is_there_when_something_is_scheduled(said, monkeypatch):
    monkeypatch.setitem(tests_app.conf, "beat_schedule", {"a": {"task": "a", "schedule": 1}})

    assert "beat" in services(said("--format", "compose").out)
    assert "beat" not in services(said("--format", "compose", "--no-beat").out)


def test_a_second_beat_is_warned_of_only_where_beats_have_no_lease(said, settings, monkeypatch):
    monkeypatch.setitem(tests_app.conf, "beat_schedule", {"a": {"task": "a", "schedule": 1}})
    assert "of several, one sends and the others stand by" in said("--format", "k8s").out

    settings.TASKKIT = {**getattr(settings, "TASKKIT", {}), "BEAT_LOCK": "off"}
    assert 'BEAT_LOCK is "off", so two send everything twice' in said("--format", "k8s").out


def test_the_relay_may_be_left_out(said):
    assert "relay" not in services(said("--format", "compose", "--no-relay").out)


def test_the_workers_of_some_lanes_come_alone(said):
    assert list(services(said("--format", "compose", "--lane", "mail").out)) == ["worker-mail"]


def test_a_lane_that_is_not_there_is_refused_with_those_that_are(said):
    captured = said("--lane", "mial", code=1)

    assert "There is no lane 'mial'; there are default, mail." in captured.err
    assert captured.out == ""


def test_a_project_without_lanes_has_one_worker_and_no_lane_to_ask_for(said, settings):
    settings.TASKKIT_LANES = {}

    assert list(services(said("--format", "compose").out)) == ["worker", "relay"]
    assert "There is no lane 'x'; this project has none." in said("--lane", "x", code=1).err


def test_the_size_is_for_the_cores_that_are_named(said):
    command = services(said("--format", "compose", "--cores", "16").out)["worker-mail"]["command"]

    assert "--concurrency=80" in command


@pytest.mark.parametrize("cores", ["0", "-1", "two"])
def test_no_number_of_cores_is_refused(said, cores):
    assert "give a whole number, 1 or more" in said(f"--cores={cores}", code=2).err


def test_a_warning_is_in_the_file_and_on_the_other_stream(said):
    captured = said("--format", "shell", "--lane", "mail")

    assert "worker-mail: the pool threads ignores time limits" in captured.err
    assert "# WARNING: the pool threads ignores time limits" in captured.out


def test_one_script_is_printed_as_it_is_and_several_with_their_names(said):
    assert said("--lane", "default").out.startswith("#!/bin/sh\n")
    assert [line for line in said().out.splitlines() if line.startswith("# --- ")] == [
        "# --- worker-default.sh ---",
        "# --- worker-mail.sh ---",
        "# --- relay.sh ---",
    ]


def test_outside_of_images_it_is_this_python_in_this_folder(said):
    script = said("--lane", "default").out

    assert f"cd {os.getcwd()} || exit 1\n" in script
    assert f"exec {sys.executable} -m celery -A tests.celery_app:app worker " in script


def test_python_folder_app_and_name_may_be_others(said):
    unit = said(
        *("--format", "systemd", "--lane", "default", "--app", "shop", "--directory", "/srv/shop"),
        *("--python", "/srv/python", "--name", "web shop", "--user", "shop", "--env-file", "/etc/shop.env"),
    ).out

    assert "# --- web-shop-worker-default.service ---" in unit
    assert "WorkingDirectory=/srv/shop\nUser=shop\n" in unit
    assert "EnvironmentFile=/etc/shop.env\n" in unit
    assert "ExecStart=/srv/python -m celery -A shop worker " in unit


def test_what_cant_be_written_is_said_in_one_sentence(said):
    assert "user is 'x', and the format shell has no word for it" in said("--user", "x", code=1).err
    assert "leave out what can't be printed" in said("--format", "systemd", "--user", "a\nb", code=1).err


def test_the_probe_is_told_where_the_signs_of_life_are(said, settings):
    settings.TASKKIT = {"HEALTH_DIR": "/run/shop"}

    worker = services(said("--format", "compose").out)["worker-mail"]

    assert worker["environment"]["TASKKIT_HEALTH_DIR"] == "/run/shop"
    assert worker["healthcheck"]["test"][-2:] == ["worker", "--queue=mail.out"]


def test_settings_that_are_no_lanes_are_refused(said, settings):
    settings.TASKKIT_LANES = {"default": {"pool": "swimming"}}

    assert "pool='swimming'" in said(code=1).err


# --- into a folder -----------------------------------------------------------------------------------------


def test_the_files_are_written_into_a_folder_and_scripts_can_be_run(said, tmp_path):
    folder = tmp_path / "deploy" / "bin"

    shown = said("--output", str(folder)).out

    names = ["worker-default.sh", "worker-mail.sh", "relay.sh"]
    assert shown.splitlines() == [str(folder / name) for name in names]
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o755 for name in names)
    assert said("--lane", "mail").out == (folder / "worker-mail.sh").read_text()


def test_a_file_that_says_something_else_is_not_written_over_and_neither_is_any_other(said, tmp_path):
    said("--output", str(tmp_path))
    mine = tmp_path / "relay.sh"
    mine.write_text("mine")

    error = said("--output", str(tmp_path), "--cores", "9", code=1).err

    assert f"{mine} is there and says something else" in error or "worker-mail.sh is there" in error
    assert mine.read_text() == "mine"
    assert "--concurrency=45" not in (tmp_path / "worker-mail.sh").read_text()


def test_with_force_it_is(said, tmp_path):
    (tmp_path / "relay.sh").write_bytes(b"\xff")

    said("--output", str(tmp_path), "--force")

    assert "taskkit relay" in (tmp_path / "relay.sh").read_text()


def test_the_same_files_may_be_written_again(said, tmp_path):
    said("--output", str(tmp_path))

    assert said("--output", str(tmp_path)).out


def test_a_folder_that_cant_be_made_is_said(said, tmp_path):
    (tmp_path / "file").write_text("")

    assert "The files can't be written" in said("--output", str(tmp_path / "file" / "x"), code=1).err


# --- where the app is --------------------------------------------------------------------------------------


def test_the_app_is_found_in_the_package_of_the_settings(tmp_path):
    """In a project of its own: what `celery -A` takes there is the package's name."""
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from shop.celery import app as celery_app\n")
    (package / "celery.py").write_text(
        "from celery import Celery\napp = Celery('another')\n"
        "app.config_from_object('django.conf:settings', namespace='CELERY')\n"
    )
    (package / "settings.py").write_text(
        "SECRET_KEY = 'x'\nINSTALLED_APPS = ['django_taskkit']\nCELERY_BROKER_URL = 'memory://'\n"
    )

    done = subprocess.run(
        [sys.executable, "-m", "django", "taskkit", "workers", "--no-relay"],
        cwd=tmp_path,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "shop.settings"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert " -m celery -A shop worker " in done.stdout, done.stderr
    assert "export DJANGO_SETTINGS_MODULE=shop.settings\n" in done.stdout


def test_an_app_that_is_in_no_module_has_to_be_named(said, monkeypatch):
    app = Celery("hidden", broker="memory://", set_as_current=False, fixups=[])
    monkeypatch.setattr(workers, "project_app", lambda: app)

    assert "say what `celery -A` takes: --app proj" in said(code=1).err
    assert "-A shop worker" in said("--app", "shop").out
