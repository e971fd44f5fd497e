import json
import signal

import pytest
from celery import current_app
from django.core.management import CommandError, call_command, execute_from_command_line
from django.utils import timezone

from django_taskkit.dlq import spool
from django_taskkit.dlq.pause import Troubles
from django_taskkit.management.commands import taskkit
from django_taskkit.models import OutboxMessage
from django_taskkit.probe.runner import Probe


def run(*arguments):
    """Return the exit code of ``manage.py taskkit …``."""
    try:
        execute_from_command_line(["manage.py", "taskkit", *arguments])
    except SystemExit as exit:
        return exit.code
    return 0


def test_without_a_verb_it_prints_its_help_and_exits_with_2(capsys):
    assert run() == 2
    assert "relay" in capsys.readouterr().err


def test_an_unknown_verb_exits_with_2_and_names_those_there_are(capsys):
    assert run("dance") == 2
    assert "relay" in capsys.readouterr().err


def test_the_help_of_a_verb_lists_its_options(capsys):
    assert run("relay", "--help") == 0
    assert "--health-file" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [("--traceback", "list"), ("list", "--traceback"), ("-v2", "list", "--json")])
def test_options_of_django_may_stand_before_a_verb_and_behind_it(arguments):
    parsed = taskkit.Command().create_parser("manage.py", "taskkit").parse_args(list(arguments))

    assert parsed.traceback == ("--traceback" in arguments)
    assert parsed.verbosity == (2 if "-v2" in arguments else 1)
    assert parsed.settings is None


def test_a_verb_that_cant_be_loaded_harms_no_other(monkeypatch, capsys):
    monkeypatch.setitem(taskkit.VERBS, "broken", "django_taskkit.management.no_such_module")

    assert run("relay", "--help") == 0
    assert run("broken") == 1
    assert "no_such_module" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--interval", "0"), ("--batch", "0")])
def test_options_that_make_no_sense_are_refused_by_name(option, value):
    with pytest.raises(CommandError, match=f"{option} is {value}"):
        call_command("taskkit", "relay", option, value)


@pytest.fixture
def waiting(station, db):
    @station.app.task(name="tests.add")
    def add(*numbers): ...

    def waiting(count):
        for number in range(count):
            add.apply_async((number,), outbox=True)

    return waiting


def test_relay_once_sends_what_is_due_and_says_how_it_went(station, waiting, capsys, tmp_path):
    health = tmp_path / "health.json"
    waiting(3)

    call_command("taskkit", "relay", "--once", "--batch", "2", "--health-file", str(health))

    assert station.waiting() == 3
    assert "Sent 3 messages" in capsys.readouterr().out
    facts = json.loads(health.read_text())
    assert facts | {"at": "", "relay": ""} == {
        "at": "",
        "relay": "",
        "published": 3,
        "waiting": 0,
        "oldest_seconds": 0.0,
        "errors": [],
    }
    assert facts["at"][:10] == timezone.now().date().isoformat()
    assert list(tmp_path.iterdir()) == [health]


def test_relay_once_fails_if_the_broker_is_away(unreachable_station, waiting):
    waiting(1)

    with pytest.raises(CommandError, match="can't be reached"):
        call_command("taskkit", "relay", "--once")

    assert OutboxMessage.objects.count() == 1


def test_relay_once_says_once_that_the_broker_is_away(unreachable_station, waiting, caplog, capsys, monkeypatch):
    monkeypatch.setattr(spool, "_troubles", Troubles())
    waiting(1)
    caplog.clear()

    assert run("relay", "--once") == 1

    said = capsys.readouterr()
    assert (said.out + said.err + caplog.text).count("can't be reached") == 1
    assert "can't be reached" in said.err


def test_relay_once_says_so_in_the_log_where_only_the_spool_needed_the_broker(
    unreachable_station, db, caplog, monkeypatch
):
    monkeypatch.setattr(spool, "_troubles", Troubles())

    call_command("taskkit", "relay", "--once")

    assert caplog.text.count("can't be reached") == 1


@pytest.mark.parametrize(("count", "sent"), [(0, "Sent 0 messages"), (1, "Sent 1 message;"), (2, "Sent 2 messages;")])
def test_relay_once_counts_in_english(station, waiting, capsys, count, sent):
    waiting(count)

    call_command("taskkit", "relay", "--once")

    said = capsys.readouterr().out
    assert sent in said
    assert "0 dead letters were brought in" in said


@pytest.fixture
def unreachable_station(station):
    station.app.conf.broker_write_url = "redis://127.0.0.1:1"
    assert current_app.conf.broker_write_url == station.app.conf.broker_write_url
    return station


def test_a_health_file_that_cant_be_written_does_not_stop_the_relay(station, waiting, caplog):
    waiting(1)

    call_command("taskkit", "relay", "--once", "--health-file", "/no/such/folder/health.json")

    assert station.waiting() == 1
    assert "/no/such/folder/health.json can't be written" in caplog.text


def test_a_health_file_that_cant_be_replaced_leaves_no_other_behind(station, waiting, tmp_path):
    (tmp_path / "health.json").mkdir()
    waiting(1)

    call_command("taskkit", "relay", "--once", "--health-file", str(tmp_path / "health.json"))

    assert [path.name for path in tmp_path.iterdir()] == ["health.json"]
    assert station.waiting() == 1


def test_relay_once_says_how_many_messages_the_broker_refused(station, waiting, capsys, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise RuntimeError("bad luck")

    waiting(2)
    monkeypatch.setattr(type(station._channel), "basic_publish", refuse)

    call_command("taskkit", "relay", "--once")

    assert "The broker refused 2 messages" in capsys.readouterr().out
    assert OutboxMessage.objects.count() == 2


@pytest.mark.parametrize("command", [("relay", "--once"), ("probe",)])
def test_without_an_app_of_the_project_nothing_is_sent(command, no_app):
    with pytest.raises(CommandError, match=r"Import the app in \w+/__init__.py: from .celery import app"):
        call_command("taskkit", *command)


def test_ctrl_c_ends_the_probe_with_130_and_one_sentence(station, monkeypatch, capsys, request):
    """As a signal would, at a place that every probe passes; tests/live ends a real one."""
    # What runs in the background of a shell is told to ignore it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    monkeypatch.setattr(Probe, "__enter__", lambda self: signal.raise_signal(signal.SIGINT))

    assert run("probe", "--app", "tests.celery_app:app") == 130

    said = capsys.readouterr().err
    assert "Interrupted" in said
    assert "Traceback" not in said
