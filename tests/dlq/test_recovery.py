"""A requeued task that succeeds while the database is down: its row is marked later, exactly as it would have been."""

import json
from datetime import datetime, timezone

import pytest
from django.db import InterfaceError, OperationalError, router
from kombu import Exchange, Queue

from django_taskkit.dlq import recorder, rows, spool, spool_files
from django_taskkit.dlq.recovery import Recovery, recovery_in
from django_taskkit.models import DeadLetter, DeadLetterEvent
from django_taskkit.signals import task_recovered

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 21, 9, 30, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def spool_dir(settings, tmp_path):
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / "spool"), "SPOOL_QUEUE": ""}
    return tmp_path / "spool"


@pytest.fixture
def letter():
    """A dead letter that was requeued once, and the history of what became of it."""
    row = DeadLetter.objects.create(
        task_id="x", task_name="t", status="requeued", reason="exception", requeue_count=1, died_at=AT
    )
    row.kinds = lambda: list(DeadLetterEvent.objects.values_list("kind", "generation"))
    return row


@pytest.fixture
def database(monkeypatch):
    """Take the database away, and bring it back."""

    class Database:
        def goes(self):
            monkeypatch.setattr(router, "db_for_write", lambda model, **hints: "no-such-database")

        def returns(self):
            monkeypatch.undo()
            recorder.database_pause.end()

    return Database()


def status():
    return DeadLetter.objects.get().status


class TestTheText:
    def test_brings_back_the_same(self):
        recovery = Recovery(task_id="giao hàng 🚚", generation=3, at=AT, note="Ignore")

        text = recovery.as_text()

        assert text.isascii()
        assert recovery_in(text) == recovery == recovery_in(text.encode())

    @pytest.mark.parametrize("text", ["{}", "[]", "42", '{"format": 1}'])
    def test_of_something_else_is_none(self, text):
        assert recovery_in(text) is None

    @pytest.mark.parametrize(
        "changes",
        [
            {"recovered": 2},
            {"generation": "x"},
            {"generation": float("inf")},
            {"generation": None},
            {"at": "soon"},
            {"at": 7},
        ],
    )
    def test_of_another_kind_is_refused(self, changes):
        facts = json.loads(Recovery(task_id="x", generation=1, at=AT).as_text())

        with pytest.raises(ValueError, match="."):
            recovery_in(json.dumps({**facts, **changes}))

    @pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 200_000])
    def test_that_is_no_json_is_refused(self, text):
        with pytest.raises(ValueError, match="."):
            recovery_in(text)


class TestTheDatabaseIsDown:
    def test_the_row_is_marked_when_it_works_again(self, letter, database, caplog):
        database.goes()
        assert not recorder.recover("x", 1, note="Ignore")
        database.returns()
        assert status() == "requeued"

        assert spool.drain_files(10) == 1

        assert status() == "recovered"
        event = DeadLetterEvent.objects.get()
        assert (event.kind, event.generation, event.note) == ("recovered", 1, "Ignore")
        assert spool_files.names() == []
        assert "waits in file" in caplog.text

    def test_it_is_announced_then_and_once(self, letter, database):
        seen = []

        def receiver(sender, event, **kwargs):
            seen.append((event.task_id, event.generation))

        task_recovered.connect(receiver)
        database.goes()
        recorder.recover("x", 1)
        assert seen == []
        database.returns()
        spool.drain_files(10)
        task_recovered.disconnect(receiver)

        assert seen == [("x", 1)]

    def test_the_history_has_the_time_when_it_succeeded(self, letter, database):
        spool.keep(Recovery(task_id="x", generation=1, at=AT))

        spool.drain_files(10)

        assert DeadLetterEvent.objects.get().at == AT

    def test_the_next_success_brings_it_in_without_a_relay(self, letter, database):
        database.goes()
        recorder.recover("x", 1)
        database.returns()

        recorder.recover("another", 1)

        assert status() == "recovered"
        assert spool_files.names() == []

    def test_it_is_not_tried_for_each_task(self, letter, monkeypatch):
        tried = []

        def down(recovery):
            tried.append(recovery)
            raise rows.DatabaseDownError("no route to host")

        monkeypatch.setattr(rows, "recover", down)
        for _ in range(3):
            recorder.recover("x", 1)

        assert len(tried) == 1
        assert len(spool_files.names()) == 3

    def test_it_goes_by_the_brokers_queue_as_well(self, letter, database, station, settings):
        settings.TASKKIT = {**settings.TASKKIT, "SPOOL_QUEUE": f"recoveries-{station.queue}"}
        database.goes()
        recorder.recover("x", 1)
        database.returns()
        assert spool_files.names() == []

        assert spool.drain(station.app, 10) == 1

        assert status() == "recovered"

    def test_an_entry_of_another_release_is_kept_for_a_person(self, station, settings):
        name = f"recoveries-{station.queue}"
        settings.TASKKIT = {**settings.TASKKIT, "SPOOL_QUEUE": name}
        text = json.dumps({"recovered": 99})
        with station.app.connection_for_write() as connection, connection.Producer() as producer:
            producer.publish(
                text,
                exchange="",
                routing_key=name,
                declare=[Queue(name, Exchange(""), routing_key=name)],
                content_type=spool.CONTENT_TYPE,
                content_encoding="utf-8",
            )

        assert spool.drain(station.app, 10) == 1

        assert bytes(DeadLetter.objects.get().body).decode() == text

    def test_with_the_disk_full_as_well_the_log_has_the_id(self, letter, database, monkeypatch, caplog):
        def full(text):
            raise OSError(28, "No space left on device")

        database.goes()
        monkeypatch.setattr(spool_files, "write", full)

        assert not recorder.recover("x", 1)

        assert [record.levelname for record in caplog.records] == ["CRITICAL"]
        assert "task x succeeded" in caplog.text


class TestWhatHappenedMeanwhile:
    """A recovery that comes late changes nothing that is newer."""

    def late(self, generation=1):
        spool.keep(Recovery(task_id="x", generation=generation, at=AT))
        spool.drain_files(10)
        assert spool_files.names() == []

    def test_a_row_that_was_requeued_again_waits_for_that(self, letter):
        DeadLetter.objects.update(requeue_count=2)

        self.late()

        assert (status(), letter.kinds()) == ("requeued", [])

    def test_a_discarded_row_stays_so(self, letter):
        DeadLetter.objects.update(status="discarded")

        self.late()

        assert (status(), letter.kinds()) == ("discarded", [])

    def test_a_row_that_was_purged_is_not_missed(self, letter):
        DeadLetter.objects.all().delete()

        self.late()

        assert not DeadLetter.objects.exists()

    def test_a_recovery_that_is_brought_in_twice_is_one_event(self, letter):
        self.late()
        self.late()

        assert (status(), letter.kinds()) == ("recovered", [("recovered", 1)])


class TestAConnectionThatBreaks:
    @pytest.mark.parametrize("error", [OperationalError("server has gone away"), InterfaceError("connection closed")])
    def test_is_tried_once_more(self, letter, monkeypatch, error):
        mark, failures = rows._recover, iter([error])

        def flaky(recovery):
            for failure in failures:
                raise failure
            return mark(recovery)

        monkeypatch.setattr(rows, "_recover", flaky)

        assert recorder.recover("x", 1)
        assert status() == "recovered"
        assert spool_files.names() == []

    def test_what_the_database_refuses_is_set_aside_and_holds_up_no_other(self, letter, monkeypatch, spool_dir, caplog):
        spool.keep(Recovery(task_id="y", generation=1, at=AT))
        spool.keep(Recovery(task_id="x", generation=1, at=AT))
        mark = rows._recover

        def particular(recovery):
            if recovery.task_id == "y":
                raise OperationalError("no such thing")
            return mark(recovery)

        monkeypatch.setattr(rows, "_recover", particular)

        assert spool.drain_files(10) == 1

        assert status() == "recovered"
        assert len(list((spool_dir / "refused").iterdir())) == 1
        assert "kept in" in caplog.text
