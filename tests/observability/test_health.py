"""Signs of life: how they are written, and what is read from them."""

import json
import os
import stat
import subprocess
import sys

import pytest

from django_taskkit.observability.health import files, probe, signs
from django_taskkit.observability.health.files import FolderError
from django_taskkit.observability.health.judging import STUCK, judge
from django_taskkit.process_identity import of_this_process

NOW = 1_800_000_000.0


def worker(**facts):
    well = {"role": "worker", "name": "celery@a", "pid": 1, "process": "", "at": NOW, "turned_at": NOW}
    return {**well, "connected": True, "queues": ["fast"], "pool": True, "waiting_since": None, **facts}


def gone():
    place, pid, _began = of_this_process().rsplit("/", 2)
    return f"{place}/{pid}/1"


WRONG = {
    "a loop that hangs": ({"turned_at": NOW - 31}, "has not turned its loop for 31 seconds", True),
    "a process that is gone": ({"process": gone()}, "is gone", True),
    "a pool that runs nothing": ({"waiting_since": NOW - STUCK - 1, "reserved": 4}, "is stuck: 4 messages", True),
    "an empty pool": ({"pool": False}, "has no process in its pool", True),
    "no broker": ({"connected": False, "connected_at": NOW - 9}, "no connection to the broker for 9", False),
    "no queue": ({"queues": []}, "consumes from no queue", False),
    "one that stops": ({"stopping": True, "turned_at": NOW - 99}, "is stopping", False),
}


@pytest.mark.parametrize(("facts", "said", "needs_restart"), WRONG.values(), ids=WRONG)
def test_finds(facts, said, needs_restart):
    _well, wrong = judge([worker(**facts)], "worker", NOW)
    _well, to_restart = judge([worker(**facts)], "worker", NOW, only_alive=True)

    assert said in wrong[0]
    assert bool(to_restart) is needs_restart


WELL = {
    "one that works": {},
    "a solo worker in the middle of a task": {"turned_at": NOW - 999, "busy": "reports.build"},
    "messages that have waited a moment": {"waiting_since": NOW - 5, "reserved": 4},
}


@pytest.mark.parametrize("facts", WELL.values(), ids=WELL)
def test_is_content_with(facts):
    well, wrong = judge([worker(**facts)], "worker", NOW)

    assert (len(well), wrong) == (1, [])


def test_a_busy_worker_whose_very_process_is_silent_hangs():
    _well, wrong = judge([worker(turned_at=NOW - 99, at=NOW - 60, busy="reports.build")], "worker", NOW)

    assert "has not turned its loop" in wrong[0]


def test_all_workers_have_to_be_well():
    well, wrong = judge([worker(), worker(name="celery@b", queues=[])], "worker", NOW)

    assert (len(well), len(wrong)) == (1, 1)


def test_what_a_killed_one_left_counts_until_another_of_its_name_works():
    dead = worker(process=gone())

    assert judge([dead], "worker", NOW)[1]
    assert judge([dead, worker(pid=2)], "worker", NOW)[1] == []
    assert judge([dead, worker(name="celery@b")], "worker", NOW)[1]


def elsewhere(**facts):
    """A sign from the container that was here before, or from before the machine was started anew."""
    boot = of_this_process().split("/")[0]
    return worker(pid=17, host="web1", process=f"{boot}/pid:[1]/17/12345", **facts)


def here(**facts):
    return worker(pid=2, host="web1", process=of_this_process(), started_at=NOW - 10, **facts)


KILLED = {
    "before this one began": {"started_at": NOW - 99, "at": NOW - 11, "turned_at": NOW - 11},
    "long ago, as far as it said": {"started_at": NOW - 99, "at": NOW - 40, "turned_at": NOW - 40, "stopping": True},
}


@pytest.mark.parametrize("facts", KILLED.values(), ids=KILLED)
def test_what_a_killed_container_left_does_not_count_once_its_successor_works(facts):
    assert judge([here(), elsewhere(**facts)], "worker", NOW)[1] == []
    assert judge([here(), elsewhere(**facts)], "worker", NOW, queues=["other"])[1] == ["no worker here consumes other"]


def test_one_of_another_container_that_still_writes_counts_and_so_does_one_without_a_successor():
    writes = elsewhere(started_at=NOW - 99, queues=[])
    silent = {"started_at": NOW - 99, "at": NOW - 40, "turned_at": NOW - 40}

    assert "consumes from no queue" in judge([here(), writes], "worker", NOW)[1][0]
    assert judge([elsewhere(**silent)], "worker", NOW)[1]
    assert judge([here(name="celery@b"), elsewhere(**silent)], "worker", NOW)[1]
    assert judge([{**here(), "host": "web2"}, elsewhere(**silent)], "worker", NOW)[1]
    assert judge([{**here(), "process": gone()}, elsewhere(**silent)], "worker", NOW)[1]


def test_a_silent_successor_does_not_make_one_well_that_hangs():
    hanging = here(turned_at=NOW - 99)
    old = elsewhere(started_at=NOW - 500, at=NOW - 400, turned_at=NOW - 400)

    assert len(judge([old, hanging], "worker", NOW)[1]) == 1


def test_a_lane_needs_a_worker_here():
    assert judge([worker()], "worker", NOW, queues=["fast"])[1] == []
    assert judge([worker()], "worker", NOW, queues=["slow"])[1] == ["no worker here consumes slow"]


def test_a_beat_that_stands_by_is_well_and_one_that_is_unsure_is_not():
    beat = {"role": "beat", "name": "a", "pid": 1, "at": NOW}

    assert judge([{**beat, "standing": "standing by"}], "beat", NOW)[1] == []
    assert "can't see to its lease" in judge([{**beat, "standing": "unsure"}], "beat", NOW)[1][0]
    overdue = {**beat, "standing": "at work", "next_due_at": NOW - 100}
    assert "has not sent what was due 100 seconds ago" in judge([overdue], "beat", NOW)[1][0]
    assert judge([overdue], "beat", NOW, only_alive=True)[1] == []


def test_a_relay_with_errors_does_not_work():
    relay = {"role": "relay", "name": "a", "pid": 1, "at": NOW, "errors": ["broker: away"]}

    assert "broker: away" in judge([relay], "relay", NOW)[1][0]
    assert judge([relay], "relay", NOW, only_alive=True)[1] == []


def test_no_sign_is_no_health():
    assert judge([], "relay", NOW) == ([], ["no relay has written a sign of life"])


@pytest.fixture
def folder(tmp_path, settings):
    settings.TASKKIT = {"HEALTH_DIR": str(tmp_path / "health")}
    return tmp_path / "health"


def test_a_sign_is_there_while_the_process_is_and_is_its_users_alone(folder):
    sign = signs.SignOfLife("relay", "web1")
    sign.write({"errors": []})

    (path,) = folder.iterdir()
    assert path.name == f"relay-web1-{os.getpid()}.json"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["process"] == of_this_process()
    assert not sign.is_due()
    sign.remove()
    sign.write({})
    assert list(folder.iterdir()) == []


def test_what_a_killed_process_of_this_name_left_is_taken_away(folder):
    folder.mkdir(mode=0o700)
    (folder / "relay-web1-1.json").write_text(json.dumps({**worker(role="relay", name="web1"), "process": gone()}))
    (folder / "relay-web2-1.json").write_text(json.dumps({**worker(role="relay", name="web2"), "process": gone()}))

    signs.SignOfLife("relay", "web1").write({})

    assert {path.name for path in folder.iterdir()} == {f"relay-web1-{os.getpid()}.json", "relay-web2-1.json"}


def test_what_a_container_of_this_name_left_is_taken_away_and_that_of_another_host_is_not(folder, monkeypatch):
    monkeypatch.setattr(signs.socket, "gethostname", lambda: "web1")
    folder.mkdir(mode=0o700)
    before = {**elsewhere(), "role": "relay", "name": "relay"}
    (folder / "relay-relay-17.json").write_text(json.dumps(before))
    (folder / "relay-relay-18.json").write_text(json.dumps({**before, "host": "web2"}))

    signs.SignOfLife("relay", "relay").write({})

    assert {path.name for path in folder.iterdir()} == {"relay-relay-18.json", f"relay-relay-{os.getpid()}.json"}


def test_a_folder_that_others_may_write_to_is_refused_and_harms_nobody(folder, caplog):
    folder.mkdir()
    folder.chmod(0o777)

    for _ in range(2):
        signs.SignOfLife("relay", "web1").write({})

    assert list(folder.iterdir()) == []
    assert "only this user can write to" in caplog.text


def test_a_file_of_another_kind_is_left_out(tmp_path):
    (tmp_path / "worker-a-1.json").write_text("half of it")
    (tmp_path / "worker-b-1.json").write_text("[]")
    (tmp_path / "worker-c-1.json").write_text("{}")

    assert files.read(str(tmp_path), "worker") == []
    assert files.read(str(tmp_path / "nowhere"), "worker") == []


def test_names_make_no_path():
    assert files.path_of("/run/x", "worker", "../../etc/passwd", 1) == "/run/x/worker-.._.._etc_passwd-1.json"


@pytest.fixture
def above(tmp_path, monkeypatch):
    """Where the default folders are."""
    monkeypatch.setattr(files.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE")
    above = tmp_path / f"taskkit-health-{os.getuid()}"
    above.mkdir()
    return above


def test_with_several_projects_somebody_has_to_say_which(above):
    (above / "shop.settings-1").mkdir()

    assert files.default_folder() == str(above / "shop.settings-1")
    (above / "blog.settings-2").mkdir()
    with pytest.raises(FolderError, match=r"blog\.settings-2, shop\.settings-1"):
        files.default_folder()
    assert files.default_folder("blog.settings") == str(above / "blog.settings-2")
    (above / "blog.settings-3").mkdir()
    with pytest.raises(FolderError, match=r"blog\.settings-2, blog\.settings-3; give --dir"):
        files.default_folder("blog.settings")


@pytest.mark.parametrize("name", ["config/settings.py", "config/settings/__init__.py"])
def test_projects_that_call_their_settings_alike_have_folders_of_their_own(above, tmp_path, monkeypatch, name):
    places = []
    for project in ("shop", "blog"):
        settings_file = tmp_path / project / name
        settings_file.parent.mkdir(parents=True)
        settings_file.touch()
        writes = files.default_folder("config.settings", str(settings_file))
        with monkeypatch.context() as patched:
            patched.setattr(files.sys, "path", [str(tmp_path / "nowhere"), str(tmp_path / project)])
            patched.setenv("DJANGO_SETTINGS_MODULE", "config.settings")
            assert files.default_folder() == writes
        places.append(writes)

    assert len(set(places)) == 2
    assert all(place.startswith(str(above / "config.settings-")) for place in places)


def test_a_process_writes_where_a_probe_without_django_looks_for_it(above, settings, monkeypatch):
    settings.TASKKIT = {}
    settings.SETTINGS_MODULE = "tests.settings"
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.settings")

    assert signs.folder() == files.default_folder()
    assert os.path.basename(signs.folder()).startswith("tests.settings-")


def test_a_terminal_gets_no_commands_from_a_name():
    assert probe.printable("a\x1b[2Jb\nc") == r"a\x1b[2Jb\nc"


def test_the_probe_imports_neither_django_nor_celery(tmp_path):
    code = f"""
import sys
from django_taskkit.observability.health.probe import main
code = main(["worker", "--dir", {str(tmp_path)!r}])
print(code, *[name for name in ("django", "celery", "kombu", "dataclasses", "inspect") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "1\n"
    assert done.stderr == f"no worker has written a sign of life in {tmp_path}\n"
