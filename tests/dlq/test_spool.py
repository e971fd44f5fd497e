"""The spool's entries, its files and its queue; tests/live/test_spool.py has the outages."""

import json
import os
import stat
import subprocess
import sys
import threading
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal

import pytest
from celery import signals
from kombu import Exchange, Queue

from django_taskkit.dlq import rows, spool, spool_files
from django_taskkit.dlq.death import Death
from django_taskkit.dlq.models import Reason
from django_taskkit.envelope import Envelope
from django_taskkit.models import DeadLetter
from django_taskkit.worker import startup


def death(task_id="x", **options):
    message = Envelope(
        body=b"\x80\x05 \xff\x00",
        content_type="application/x-python-serialize",
        content_encoding="binary",
        headers={
            "id": task_id,
            "task": "t",
            "retries": 2,
            "at": datetime(2026, 1, 1, tzinfo=timezone.utc),
            "price": Decimal("1.50"),
            "lone": "\udc80",
        },
        properties={"priority": 3, "reply_to": "r"},
        exchange="e",
        routing_key="k",
        queue="q",
    )
    died_at = datetime(2026, 11, 21, 9, 30, tzinfo=timezone.utc)
    facts = {"task_name": "t", "reason": Reason.TIME_LIMIT, "traceback": "giao hàng 🚚", "worker": "w@h"}
    return Death(envelope=message, died_at=died_at, **{**facts, **options})


@pytest.fixture(autouse=True)
def spool_dir(settings, tmp_path):
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / "spool"), "SPOOL_QUEUE": f"spool-{uuid.uuid4()}"}
    return tmp_path / "spool"


def put(station, body, content_type=spool.CONTENT_TYPE):
    name = spool.conf.current().spool_queue
    queue = Queue(name, Exchange(""), routing_key=name)
    with station.app.connection_for_write() as connection, connection.Producer() as producer:
        producer.publish(
            body,
            exchange="",
            routing_key=name,
            declare=[queue],
            content_type=content_type,
            content_encoding="utf-8",
            headers={"tenant": "t1"},
        )


class TestTheText:
    def test_says_all_that_a_row_needs(self, settings):
        settings.TASKKIT = {"RELEASE": "1.0"}
        before = death()
        text = before.as_text()
        settings.TASKKIT = {"RELEASE": "2.0"}

        after = Death.from_text(text)

        assert after.columns()["release"] == "1.0"
        assert after.envelope.body == before.envelope.body
        assert after.died_at == before.died_at
        encode = DeadLetter._meta.get_field("headers").get_prep_value
        for name in ("headers", "properties"):
            assert encode(after.columns()[name]) == encode(before.columns()[name])
        same = before.columns().keys() - {"headers", "properties"}
        assert {key: after.columns()[key] for key in same} == {key: before.columns()[key] for key in same}

    def test_keeps_what_only_looks_like_a_mark_of_kombus(self):
        odd = {"__type__": "no such type", "__value__": 1}
        message = replace(death().envelope, headers={"id": "x", "odd": odd})

        assert Death.from_text(replace(death(), envelope=message).as_text()).envelope.headers["odd"] == odd

    def test_is_json_in_ascii(self):
        assert death().as_text().isascii()
        assert json.loads(death().as_text())["format"] == 1

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "42", '{"format": 1}', '{"format": 2}', b"\xff", death().as_text().replace("time_limit", "tide")],
    )
    def test_of_something_else_is_an_error(self, text):
        with pytest.raises(ValueError, match=r"."):
            Death.from_text(text)


class TestTheFolder:
    def test_and_its_files_are_for_nobody_else(self, spool_dir):
        file = spool_files.write("{}")

        assert stat.S_IMODE(spool_dir.stat().st_mode) == 0o700
        assert stat.S_IMODE(file.stat().st_mode) == 0o600

    def test_is_the_same_after_a_deployment_and_another_one_for_another_database(self, settings):
        from django.db import connection

        settings.TASKKIT = {}
        before = spool_files.path()

        assert str(before).startswith(f"/var/tmp/django-taskkit-{os.geteuid()}-")  # noqa: S108
        name = connection.settings_dict["NAME"]
        try:
            connection.settings_dict["NAME"] = "another"
            assert spool_files.path() != before
        finally:
            connection.settings_dict["NAME"] = name
        assert spool_files.path() == before

    @pytest.mark.parametrize("trap", ["link", "file", "somebody's", "open"])
    def test_is_refused_if_somebody_else_may_have_made_it(self, settings, tmp_path, monkeypatch, trap):
        settings.TASKKIT = {}
        folder = tmp_path / "default"
        monkeypatch.setattr(spool_files, "path", lambda: folder)
        if trap == "link":
            (tmp_path / "elsewhere").mkdir(mode=0o700)
            folder.symlink_to(tmp_path / "elsewhere")
        elif trap == "file":
            folder.touch(mode=0o600)
        elif trap == "somebody's":
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            folder.mkdir(mode=0o700)
            os.chown(folder, 65534, 65534)
        else:
            folder.mkdir()
            folder.chmod(0o755)

        with pytest.raises((spool_files.UnsafeFolderError, FileExistsError)):
            spool_files.write("{}")

    def test_that_a_project_names_may_be_roots_as_the_mount_of_a_volume_is(self, spool_dir, tmp_path):
        (tmp_path / "volume").mkdir()
        spool_dir.symlink_to(tmp_path / "volume")

        assert spool_files.write("{}").exists()

    def test_that_a_project_names_is_refused_if_anybody_may_write_there(self, spool_dir):
        spool_dir.mkdir()
        spool_dir.chmod(0o777)

        with pytest.raises(spool_files.UnsafeFolderError, match="name another one in TASKKIT"):
            spool_files.write("{}")

    def test_holds_no_half_file_when_the_disk_is_full(self, spool_dir, monkeypatch):
        def full(descriptor):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)

        with pytest.raises(OSError, match="No space"):
            spool_files.write("{}")

        assert [path for path in spool_dir.rglob("*") if path.is_file()] == []

    def test_loses_what_a_process_left_half_written_only_after_a_day(self, spool_dir):
        spool_files.opened()
        old, new = spool_dir / "tmp" / "old", spool_dir / "tmp" / "new"
        for path in (old, new):
            path.touch()
        os.utime(old, (0, 0))

        spool_files.tidy()

        assert [path.name for path in (spool_dir / "tmp").iterdir()] == ["new"]


@pytest.mark.django_db
class TestFilesAreBroughtIn:
    def test_oldest_first_and_no_more_than_asked_for(self):
        for number in range(3):
            spool_files.write(death(str(number)).as_text())

        assert spool.drain_files(2) == 2

        assert {row.task_id for row in DeadLetter.objects.all()} == {"0", "1"}
        assert spool.drain_files(2) == 1
        assert spool.drain_files(2) == 0

    def test_but_not_what_another_process_is_bringing_in(self):
        file = spool_files.write(death("x").as_text())
        spool_files.write(death("y").as_text())
        code = (
            "import fcntl, os, sys\n"
            f"fd = os.open({str(file)!r}, os.O_RDONLY)\n"
            "fcntl.flock(fd, fcntl.LOCK_EX)\n"
            "print('locked', flush=True)\n"
            "sys.stdin.read()\n"
        )
        other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert other.stdout.readline() == b"locked\n"

            assert spool.drain_files(10) == 1
            assert DeadLetter.objects.get().task_id == "y"
        finally:
            other.kill()
            other.communicate()

        assert spool.drain_files(10) == 1

    def test_once_if_two_had_the_list(self):
        spool_files.write(death("x").as_text())
        [name] = spool_files.names()
        spool.drain_files(10)

        with spool_files.claimed(name) as file:
            assert file is None

    def test_and_one_that_can_not_be_read_is_set_aside(self, spool_dir, caplog):
        bad = spool_files.write("not json")
        spool_files.write(death("x").as_text())

        assert spool.drain_files(10) == 1

        aside = spool_dir / "refused" / bad.name
        assert aside.read_text() == "not json"
        assert f"is kept in {aside}" in caplog.text
        assert [entry.levelname for entry in caplog.records] == ["CRITICAL"]

    def test_not_while_the_database_is_down(self, monkeypatch, caplog):
        monkeypatch.setattr(rows, "works", lambda *args: False)
        spool_files.write(death("x").as_text())

        assert spool.drain_files(10) == 0
        assert spool.drain_files(10) == 0
        assert len(spool_files.names()) == 1
        assert caplog.text.count("the database takes no dead letters") == 1

        monkeypatch.undo()

    def test_and_stay_if_it_goes_down_meanwhile(self, monkeypatch):
        def down(*args, **options):
            raise rows.DatabaseDownError("gone")

        for name in "xyz":
            spool_files.write(death(name).as_text())
        monkeypatch.setattr(rows, "write", down)

        assert spool.drain_files(10) == 0
        assert len(spool_files.names()) == 3


def bringing_in():
    """The thread that a worker which has just started leaves to it, if there is one."""
    return next((thread for thread in threading.enumerate() if thread.name == "django_taskkit.spool"), None)


class TestAWorkerThatStarts:
    @pytest.mark.django_db(transaction=True)
    def test_brings_in_the_files_of_its_machine(self, monkeypatch):
        monkeypatch.setattr(startup, "FILES_AT_A_TIME", 2)
        for number in range(5):
            spool_files.write(death(str(number)).as_text())

        signals.worker_ready.send(sender=None)

        if thread := bringing_in():
            thread.join(60)
        assert {row.task_id for row in DeadLetter.objects.all()} == set("01234")
        assert spool_files.names() == []

    def test_does_not_wait_for_it(self, monkeypatch):
        go_on = threading.Event()
        monkeypatch.setattr(rows, "works", lambda *args: go_on.wait(60) and False)
        spool_files.write(death("x").as_text())

        signals.worker_ready.send(sender=None)

        thread = bringing_in()
        assert thread.daemon
        go_on.set()
        thread.join(60)

    def test_has_nothing_to_do_if_there_are_none(self):
        signals.worker_ready.send(sender=None)

        assert bringing_in() is None


@pytest.mark.django_db
class TestTheQueue:
    def test_keeps_no_more_than_the_message_and_the_facts_of_its_death(self, station):
        assert spool.keep(death()).startswith("queue 'spool-")

        name = spool.conf.current().spool_queue
        message = station.app.amqp.queues[name](station._channel).get()
        assert message.headers == {}
        assert Death.from_text(message.body) == replace(death(), release="")
        message.requeue()

    def test_is_emptied_no_further_than_asked_for(self, station):
        for number in range(3):
            spool.keep(death(str(number)))

        assert spool.drain(station.app, 2) == 2
        assert spool.waiting(station.app) == (0, 1)

    def test_gets_back_what_was_taken_when_the_database_goes_down(self, station, monkeypatch):
        def down(*args, **options):
            raise rows.DatabaseDownError("gone")

        for number in range(3):
            spool.keep(death(str(number)))
        with monkeypatch.context() as patch:
            patch.setattr(rows, "write", down)
            assert spool.drain(station.app, 10) == 0
        assert spool.waiting(station.app) == (0, 3)

        assert spool.drain(station.app, 10) == 3

    def test_holds_nothing_twice_if_the_acknowledgement_is_lost(self, station):
        spool.keep(death())
        spool.keep(death())

        spool.drain(station.app, 10)

        letter = DeadLetter.objects.get()
        assert [event.kind for event in letter.events.all()] == ["died"]

    @pytest.mark.parametrize("body", [b"not json", b"\xff", b"[]", b""])
    def test_turns_somebody_elses_message_into_a_dead_letter(self, station, body, caplog):
        put(station, body)
        spool.keep(death("x"))

        assert spool.drain(station.app, 10) == 2

        other = DeadLetter.objects.exclude(task_id="x").get()
        assert (bytes(other.body), other.reason, other.headers) == (body, "invalid", {"tenant": "t1"})
        assert other.task_id.startswith("no-id-")
        assert "is no entry of it" in caplog.text or "is none of its entries" in caplog.text

    def test_is_not_waited_for_twice_when_the_broker_is_gone(self, station, caplog):
        station.app.conf.broker_url = "redis://127.0.0.1:1/0"

        assert spool.keep(death("x")).startswith("file ")
        assert spool.keep(death("y")).startswith("file ")

        assert caplog.text.count("takes no dead letters, files have to do") == 1
        assert spool.waiting(station.app) == (2, None)
        assert spool.drain(station.app, 10) == 2

    def test_may_be_off(self, station, settings, spool_dir):
        settings.TASKKIT = {"SPOOL_DIR": str(spool_dir), "SPOOL_QUEUE": ""}

        assert spool.keep(death()).startswith("file ")
        assert spool.waiting(station.app) == (1, 0)
        assert spool.drain(station.app, 10) == 1
