import gzip
import json
import os
import stat
import subprocess
import sys
from datetime import datetime, timezone

import pytest
from django.core.management import CommandError, call_command

from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db

DIED = datetime(2026, 11, 21, 3, tzinfo=timezone.utc)


@pytest.fixture
def letters():
    def letters(*task_ids, **columns):
        for task_id in task_ids:
            DeadLetter.objects.create(
                task_id=task_id,
                **{"task_name": "shop.pay", "reason": "exception", "died_at": DIED, "body": b"x", **columns},
            )

    return letters


def ids(text):
    return [json.loads(line)["task_id"] for line in text.splitlines()]


def test_letters_go_to_the_standard_output_and_nothing_else_does(letters, capsys):
    letters("a", "b")

    call_command("taskkit", "export")

    said = capsys.readouterr()
    assert ids(said.out) == ["a", "b"]
    assert said.err == ""


def test_filters_choose_and_by_default_it_is_what_is_open(letters, capsys):
    letters("dead")
    letters("held", status="held")
    letters("closed", status="discarded")
    letters("revoked", reason="revoked")
    letters("other", task_name="shop.ship")

    for options, expected in [
        ((), {"dead", "held", "revoked", "other"}),
        (("--status", "any"), {"dead", "held", "revoked", "other", "closed"}),
        (("--task", "shop.ship"), {"other"}),
        (("--id", "closed", "--status", "any"), {"closed"}),
        (("--task", "none"), set()),
    ]:
        call_command("taskkit", "export", *options)
        assert set(ids(capsys.readouterr().out)) == expected


def test_a_file_may_be_read_by_its_owner_alone_and_says_how_many(letters, tmp_path, capsys):
    letters("a", "b")
    path = tmp_path / "letters.jsonl"
    before = os.umask(0)
    try:
        call_command("taskkit", "export", "-o", str(path))
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ids(path.read_text()) == ["a", "b"]
    assert f"Wrote 2 dead letters to {path}, which may hold secrets." in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_ends_in_gz_is_compressed(letters, tmp_path):
    letters("a")
    path = tmp_path / "letters.jsonl.gz"

    call_command("taskkit", "export", "-o", str(path))

    assert ids(gzip.decompress(path.read_bytes()).decode()) == ["a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_export_that_fails_leaves_the_file_as_it_was(letters, tmp_path, monkeypatch):
    letters("a", "b")
    path = tmp_path / "letters.jsonl"
    path.write_text("before")
    monkeypatch.setattr("django_taskkit.dlq.transfer.portable._plain", lambda value: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        call_command("taskkit", "export", "-o", str(path))

    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_ctrl_c_leaves_the_file_as_it_was_and_ends_with_130(letters, tmp_path, monkeypatch):
    def interrupted(value):
        raise KeyboardInterrupt

    letters("a")
    path = tmp_path / "letters.jsonl"
    monkeypatch.setattr("django_taskkit.dlq.transfer.portable._plain", interrupted)

    with pytest.raises(CommandError, match=f"Interrupted. {path} is as it was.") as failed:
        call_command("taskkit", "export", "-o", str(path))

    assert failed.value.returncode == 130
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no/such/folder.jsonl", "."])
def test_a_file_that_cant_be_written_is_named(letters, tmp_path, name):
    with pytest.raises(CommandError, match="can't be written"):
        call_command("taskkit", "export", "-o", str(tmp_path / name))


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(CommandError, match="it is no file"):
        call_command("taskkit", "export", "-o", "/dev/null")

    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_the_help_warns_of_secrets():
    done = subprocess.run(
        [sys.executable, "-m", "django", "taskkit", "export", "--help"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "COLUMNS": "500"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "secrets included" in done.stdout
