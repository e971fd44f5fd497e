import gzip
import io
import json
import sys
from datetime import datetime, timezone

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db import connection

from django_taskkit.management import import_
from django_taskkit.models import DeadLetter, DeadLetterEvent

pytestmark = pytest.mark.django_db

DIED = datetime(2026, 11, 21, 3, tzinfo=timezone.utc)


@pytest.fixture
def exported(tmp_path):
    """A file with dead letters of these ids, which are in no table any more."""

    def exported(*task_ids, name="letters.jsonl"):
        for task_id in task_ids:
            row = DeadLetter.objects.create(
                task_id=task_id, task_name="shop.pay", reason="exception", died_at=DIED, body=b"[[7], {}, {}]"
            )
            row.events.create(kind="died", at=DIED)
        path = tmp_path / name
        call_command("taskkit", "export", "-o", str(path))
        DeadLetter.objects.all().delete()
        return path

    return exported


def ids():
    return set(DeadLetter.objects.values_list("task_id", flat=True))


@pytest.mark.parametrize("name", ["letters.jsonl", "letters.jsonl.gz"])
def test_a_file_of_an_export_comes_in(exported, capsys, name):
    path = exported("a", "b", name=name)
    capsys.readouterr()

    call_command("taskkit", "import", str(path))

    assert ids() == {"a", "b"}
    assert capsys.readouterr().out == "Imported 2 dead letters; 0 already there, 0 refused.\n"
    event = DeadLetterEvent.objects.filter(kind="imported").first()
    assert event.by.startswith("cli:")
    assert event.note == f"from {name}"


def test_so_does_the_standard_input(exported, monkeypatch):
    path = exported("a")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(path.read_bytes())))

    call_command("taskkit", "import", "-")

    assert ids() == {"a"}
    assert DeadLetterEvent.objects.get(kind="imported").note == "from the standard input"


def test_a_second_import_changes_nothing(exported, capsys):
    path = exported("a")
    call_command("taskkit", "import", str(path))
    DeadLetter.objects.update(status="discarded")
    capsys.readouterr()

    call_command("taskkit", "import", str(path))

    assert "Imported 0 dead letters; 1 already there, 0 refused." in capsys.readouterr().out
    assert DeadLetter.objects.get().status == "discarded"


def test_a_line_that_is_none_is_named_and_the_others_come_in(exported, capsys):
    path = exported("a", "b")
    first, second = path.read_text().splitlines()
    odd = json.dumps({**json.loads(first), "task_id": "odd", "attempts": -1})
    path.write_text(f"{first}\n\nno json\x1b[2J\n{odd}\n{second}")

    with pytest.raises(CommandError, match="2 were refused; each is named above") as failed:
        call_command("taskkit", "import", str(path))

    said = capsys.readouterr()
    assert failed.value.returncode == 1
    assert ids() == {"a", "b"}
    assert "line 3: it is no JSON: " in said.err
    assert "line 4: 'attempts' is -1" in said.err
    assert "\x1b" not in said.err
    assert "Imported 2 dead letters; 0 already there, 2 refused." in said.out


def test_a_line_that_is_too_long_is_refused_and_the_next_is_read(exported, capsys, monkeypatch):
    path = exported("a", "b")
    first, second = path.read_text().splitlines()
    monkeypatch.setattr(import_, "LONGEST_LINE", len(first))
    path.write_text(f"{first}\n{'x' * (5 * len(first) + 3)}\n{second}\n")

    with pytest.raises(CommandError, match="1 was refused"):
        call_command("taskkit", "import", str(path))

    assert ids() == {"a", "b"}
    assert f"line 2: it is longer than {len(first)} bytes" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be(exported, capsys):
    path = exported("a", "b")

    call_command("taskkit", "import", str(path), "--dry-run")

    assert ids() == set()
    assert "Would import 2 dead letters; 0 already there, 0 refused." in capsys.readouterr().out


def test_the_counts_can_be_had_as_json(exported, capsys):
    path = exported("a")
    capsys.readouterr()

    call_command("taskkit", "import", str(path), "--json")

    assert json.loads(capsys.readouterr().out) == {
        "imported": 1,
        "already_there": 0,
        "refused": 0,
        "dry_run": False,
    }


def test_compressed_data_are_known_without_a_name(exported, monkeypatch):
    path = exported("a", name="letters.jsonl.gz")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(path.read_bytes()))))

    call_command("taskkit", "import", "-")
    assert ids() == {"a"}

    renamed = path.rename(path.with_suffix(""))
    call_command("taskkit", "import", str(renamed))


def test_a_file_that_ends_in_the_middle_says_where_and_what_was_before_comes_in(exported):
    import random

    path = exported("a", name="letters.jsonl.gz")
    line = gzip.decompress(path.read_bytes())
    noise = random.Random(1).randbytes(20_000).hex().encode()  # more than is unpacked at once
    path.write_bytes(gzip.compress(line + noise)[:-9])

    with pytest.raises(CommandError, match="can't be read on from line 2: "):
        call_command("taskkit", "import", str(path))

    assert ids() == {"a"}


@pytest.mark.parametrize("name", ["none.jsonl", "none.jsonl.gz", "."])
def test_a_file_that_cant_be_read_is_named(tmp_path, name):
    with pytest.raises(CommandError, match="can't be read"):
        call_command("taskkit", "import", str(tmp_path / name))


def test_a_file_that_is_not_compressed_though_its_name_says_so_is_named(exported):
    path = exported("a")
    other = path.with_suffix(".gz")
    path.rename(other)

    with pytest.raises(CommandError, match="can't be read on from line 1: Not a gzipped file"):
        call_command("taskkit", "import", str(other))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "Say what to import"),
        (("--from", "rabbitmq-queue"), "Say what to import"),
        (("--from", "django-celery-results", "x"), "takes no 'x'"),
        (("a.jsonl", "--since", "2h"), "--since goes with --from django-celery-results only"),
        (("a.jsonl", "--force"), "--force goes with --from rabbitmq-queue only"),
    ],
)
def test_options_that_make_no_sense_end_with_2(options, says):
    with pytest.raises(CommandError, match=says) as failed:
        call_command("taskkit", "import", *options)

    assert failed.value.returncode == 2


def test_a_database_that_is_gone_says_what_to_do(exported, monkeypatch):
    path = exported("a")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_taskkit_deadletter RENAME TO elsewhere")
    try:
        with pytest.raises(CommandError, match="run the import again for the rest"):
            call_command("taskkit", "import", str(path))
    finally:
        if not connection.features.can_rollback_ddl:
            with connection.cursor() as cursor:
                cursor.execute("ALTER TABLE elsewhere RENAME TO django_taskkit_deadletter")


def test_ctrl_c_keeps_what_was_read_and_ends_with_130(exported, monkeypatch):
    path = exported("a", "b")
    read = import_.letter_in

    def interrupted(line):
        letter = read(line)
        if letter.task_id == "b":
            raise KeyboardInterrupt
        return letter

    monkeypatch.setattr(import_, "letter_in", interrupted)

    with pytest.raises(CommandError, match="run the import again for the rest") as failed:
        call_command("taskkit", "import", str(path))

    assert failed.value.returncode == 130
    assert ids() == {"a"}


class TestFromDjangoCeleryResults:
    @pytest.fixture
    def results(self, tables_of_results, station):
        model = apps.get_model("django_celery_results", "TaskResult")

        def make(task_id, args='"(7,)"', **columns):
            return model.objects.create(
                **{
                    "task_id": task_id,
                    "task_name": "shop.pay",
                    "task_args": args,
                    "task_kwargs": '"{}"',
                    "status": "FAILURE",
                    "content_type": "application/json",
                    "content_encoding": "utf-8",
                    "result": '{"exc_type": "KeyError", "exc_message": ["x"], "exc_module": "builtins"}',
                    **columns,
                }
            )

        return make

    def test_failures_come_in_and_the_others_are_counted_by_reason(self, results, capsys):
        results("a")
        results("short", "\"('x...',)\"")
        results("shorter", '"(1, ...)"')
        results("none", None)
        results("fine", status="SUCCESS")

        with pytest.raises(CommandError, match="3 were refused"):
            call_command("taskkit", "import", "--from", "django-celery-results")

        assert ids() == {"a"}
        said = capsys.readouterr()
        assert "short: its arguments were shortened" in said.err
        assert "none: its arguments were not stored" in said.err
        assert said.out.splitlines() == [
            "Imported 1 dead letter; 0 already there, 3 refused.",
            "  2: its arguments were shortened where they were stored",
            "  1: its arguments were not stored, which takes result_extended = True",
        ]

    def test_a_dry_run_writes_nothing_and_json_has_the_reasons(self, results, capsys):
        results("a")
        results("none", None)

        with pytest.raises(CommandError):
            call_command("taskkit", "import", "--from", "django-celery-results", "--dry-run", "--json")

        assert ids() == set()
        assert json.loads(capsys.readouterr().out) == {
            "imported": 1,
            "already_there": 0,
            "refused": 1,
            "refused_because": {"its arguments were not stored, which takes result_extended = True": 1},
            "dry_run": True,
        }

    def test_a_time_narrows_them(self, results):
        results("a")

        call_command("taskkit", "import", "--from", "django-celery-results", "--until", "1h")

        assert ids() == set()

    def test_without_an_app_of_the_project_there_are_no_routes(self, tables_of_results, no_app):
        with pytest.raises(CommandError, match="No Celery app is loaded"):
            call_command("taskkit", "import", "--from", "django-celery-results")

    def test_a_project_without_them_is_told_how_to_get_them(self, tables_of_results, station, settings):
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_celery_results"]

        with pytest.raises(CommandError, match=r"pip install \"django-taskkit\[results\]\""):
            call_command("taskkit", "import", "--from", "django-celery-results")


class TestFromAQueueOfRabbitMQ:
    """tests/live/test_import_rabbitmq.py has a real one."""

    def test_another_broker_is_named_and_how_else_it_goes(self, station):
        with pytest.raises(CommandError, match=r"broker is memory, and not RabbitMQ; .*INTAKE_QUEUES"):
            call_command("taskkit", "import", "--from", "rabbitmq-queue", "dead")

    def test_a_broker_that_is_away_is_said_so(self, station):
        pytest.importorskip("amqp")
        station.app.conf.broker_url = "amqp://127.0.0.1:1//"

        with pytest.raises(CommandError, match="the broker can't be reached"):
            call_command("taskkit", "import", "--from", "rabbitmq-queue", "dead")

    def test_a_queue_that_the_app_reads_is_not_emptied(self, station):
        pytest.importorskip("amqp")
        station.app.conf.broker_url = "amqp://127.0.0.1:1//"

        with pytest.raises(CommandError, match=f"the app knows the queue '{station.queue}'.*--force"):
            call_command("taskkit", "import", "--from", "rabbitmq-queue", station.queue)
