"""taskkit requeue: messages go back, from the command line."""

import getpass
import io
import json
import os
import subprocess
import sys
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone

from django_taskkit.dlq.transitions import RequeueReport
from django_taskkit.management import chosen, requeue
from django_taskkit.models import DeadLetter, DeadLetterEvent
from tests.letters import dead_letter
from tests.management.test_taskkit import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def letter(station):
    """Make dead letters whose messages this app's workers would take."""

    @station.app.task(name="orders.send")
    def send(*numbers): ...

    @station.app.task(name="mail.send")
    def mail(*numbers): ...

    return lambda *args, **values: dead_letter(*args, **{"queue": station.queue, **values})


def statuses():
    return dict(DeadLetter.objects.values_list("task_id", "status"))


def test_what_the_filters_name_is_sent_again(station, letter, capsys, monkeypatch):
    monkeypatch.delenv("SUDO_USER", raising=False)
    for number in range(3):
        letter(f"o{number}", args=[number])
    letter("m", task_name="mail.send")

    assert run("requeue", "--task", "orders.*", "--yes") == 0

    assert capsys.readouterr().out == "Requeued 3 of 3 dead letters.\n"
    assert statuses() == {"o0": "requeued", "o1": "requeued", "o2": "requeued", "m": "dead"}
    assert station.waiting() == 3
    assert set(DeadLetterEvent.objects.filter(kind="requeued").values_list("by", flat=True)) == {
        f"cli:{getpass.getuser()}"
    }
    assert station.run_all() == 3
    assert statuses()["o0"] == "recovered"


@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_without_a_filter_it_refuses_unless_all_is_said(letter, verb, capsys):
    letter("a")

    assert run(verb, "--yes") == 2
    assert "say --all" in capsys.readouterr().err
    assert run(verb, "--status", "dead", "--yes") == 2
    assert statuses() == {"a": "dead"}

    assert run(verb, "--all", "--yes") == 0
    assert statuses() == {"a": f"{verb.removesuffix('e')}ed"}


@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_it_asks_with_the_count_on_a_terminal_and_refuses_elsewhere(letter, verb, capsys, monkeypatch):
    letter("a")
    letter("b")

    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    assert run(verb, "--all") == 2
    assert "say --yes" in capsys.readouterr().err

    terminal = io.StringIO("n\ny\n")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdin", terminal)
    assert run(verb, "--all") == 1
    assert f"{verb.title()} 2 dead letters? [y/N] " in capsys.readouterr().err
    assert set(statuses().values()) == {"dead"}

    assert run(verb, "--all") == 0
    assert "dead" not in statuses().values()


def test_nothing_that_matches_is_no_error_and_no_question(letter, capsys):
    assert run("requeue", "--task", "none") == 0
    assert capsys.readouterr().out == "No dead letter matches.\n"


@pytest.mark.parametrize("verb", ["requeue", "discard"])
def test_a_dry_run_changes_nothing(station, letter, verb, capsys):
    letter("a")
    letter("b", task_name="unknown")

    assert run(verb, "--all", "--dry-run") == 0

    said = capsys.readouterr().out
    assert f"Would {verb} 2 dead letters." in said
    assert ("unknown" in said) == (verb == "requeue")
    assert run(verb, "--all", "--dry-run", "--json") == 0
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert facts[0] == {f"would_{verb}": 2}
    assert set(statuses().values()) == {"dead"}
    assert station.waiting() == 0


def test_what_will_die_again_is_left_out_unless_told(station, letter, capsys):
    letter("good")
    letter("bad", task_name="gone.task")

    assert run("requeue", "--all", "--yes") == 1

    said = capsys.readouterr()
    assert said.out == "Requeued 1 of 2 dead letters.\n"
    assert "1 x preflight: No task is registered under the name gone.task. (bad)" in said.err
    assert "Refused: 1; not tried: 0." in said.err
    assert statuses() == {"good": "requeued", "bad": "dead"}

    assert run("requeue", "--id", "bad", "--despite-preflight", "--yes") == 0
    assert statuses()["bad"] == "requeued"


def test_an_id_that_cant_be_requeued_says_why(letter, capsys):
    letter("done", status="recovered")

    assert run("requeue", "--id", "done", "--id", "typo", "--yes", "--despite-preflight") == 1

    said = capsys.readouterr()
    assert said.out == "Requeued 0 of 2 dead letters.\n"
    assert "recovered by now (done)" in said.err
    assert "no dead letter with this id matches (typo)" in said.err


def test_json_has_a_line_for_each_refusal_and_the_counts(letter, capsys):
    letter("good")
    letter("ran", body_ran=True)

    assert run("requeue", "--all", "--yes", "--json", "--despite-preflight") == 1

    refusal, counts = map(json.loads, capsys.readouterr().out.splitlines())
    assert refusal["task_id"] == "ran"
    assert "once more" in refusal["refused"]
    assert counts == {"requeued": 1, "refused": 1, "not_tried": 0}


def test_what_had_ended_well_and_what_got_lost_go_only_when_told(letter):
    letter("ran", body_ran=True)
    letter("lost", status="requeued", requeue_count=1)
    plainly = ("requeue", "--yes", "--despite-preflight")

    assert run(*plainly, "--all") == 1
    assert run(*plainly, "--id", "lost") == 1
    assert run(*plainly, "--all", "--even-if-ran") == 0
    assert run(*plainly, "--status", "requeued", "--queue", "*", "--force", "--even-if-ran") == 0

    assert dict(DeadLetter.objects.values_list("task_id", "requeue_count")) == {"ran": 2, "lost": 2}


def test_what_somebody_revoked_is_left_out(letter, capsys):
    letter("r", reason="revoked")

    assert run("requeue", "--all", "--yes") == 0
    assert "Left out, since revoked: 1 task; see --revoked." in capsys.readouterr().err
    assert statuses() == {"r": "dead"}

    assert run("requeue", "--all", "--revoked", "--yes", "--despite-preflight") == 0
    assert statuses() == {"r": "requeued"}


def test_it_goes_to_another_queue_after_a_while(station, letter):
    letter("a", queue="elsewhere")

    assert (
        run("requeue", "--all", "--yes", "--despite-preflight", "--to-queue", station.queue, "--countdown", "2h") == 0
    )

    message = station.take()
    assert message.headers["eta"] > (timezone.now() + timedelta(minutes=110)).isoformat()


def test_a_queue_that_nobody_reads_is_said_before_the_question(letter, capsys):
    letter("a")

    assert run("requeue", "--all", "--to-queue", "celary") == 2

    said = capsys.readouterr().err
    assert "No worker" in said
    assert said.index("No worker") < said.index("Requeue 1 dead letter?")
    assert statuses() == {"a": "dead"}


def test_it_goes_at_a_time(station, letter):
    letter("a")

    assert run("requeue", "--all", "--yes", "--despite-preflight", "--not-before", "2099-01-02T03:04Z") == 0

    assert station.take().headers["eta"].startswith("2099-01-02T03:04")


@pytest.mark.parametrize(
    "arguments",
    [("--countdown", "-1"), ("--countdown", "99w"), ("--countdown", "1", "--not-before", "1h"), ("--to-queue", "")],
)
def test_options_that_make_no_sense_are_refused(letter, arguments, capsys):
    letter("a")

    assert run("requeue", "--all", "--yes", *arguments) == 2
    assert statuses() == {"a": "dead"}
    assert "Traceback" not in capsys.readouterr().err


def test_what_dies_after_the_question_is_not_sent(letter, monkeypatch):
    letter("a")
    ask = chosen.confirm

    def confirm(*args, **kwargs):
        letter("late", died_at=timezone.now())
        ask(*args, **kwargs)

    monkeypatch.setattr(chosen, "confirm", confirm)

    assert run("requeue", "--all", "--yes", "--despite-preflight") == 0
    assert statuses() == {"a": "requeued", "late": "dead"}


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chosen, "CHUNK", 2)


def test_many_are_sent_in_chunks(letter, small_chunks, station, capsys):
    for number in range(5):
        letter(args=[number])

    assert run("requeue", "--all", "--yes", "--despite-preflight") == 0
    assert "Requeued 5 of 5" in capsys.readouterr().out
    assert station.waiting() == 5


def test_a_broker_that_is_away_ends_it(letter, station, small_chunks, capsys):
    for _ in range(7):
        letter()
    station.app.conf.broker_write_url = "redis://127.0.0.1:1"

    assert run("requeue", "--all", "--yes", "--json", "--despite-preflight") == 1

    *_, counts = map(json.loads, capsys.readouterr().out.splitlines())
    assert counts["requeued"] == 0
    assert counts["refused"] + counts["not_tried"] == 7
    assert counts["not_tried"] >= 5
    assert set(statuses().values()) == {"dead"}


def test_ctrl_c_says_how_far_it_got(letter, small_chunks, capsys, monkeypatch):
    for _ in range(5):
        letter()
    calls = []

    def interrupted(rows, **options):
        if calls:
            raise KeyboardInterrupt
        calls.append(rows)
        return RequeueReport(requeued=2)

    monkeypatch.setattr(requeue, "requeue", interrupted)

    assert run("requeue", "--all", "--yes", "--despite-preflight") == 130
    said = capsys.readouterr().err
    assert "Interrupted; 2 dead letters or more were requeued." in said
    assert "Traceback" not in said


def test_thousands_of_reasons_are_a_few_lines(letter, capsys, monkeypatch):
    monkeypatch.setattr(chosen, "_KEPT_REASONS", 15)
    for number in range(40):
        letter(task_name=f"gone.{number}")

    assert run("requeue", "--all", "--yes") == 1

    said = capsys.readouterr().err.splitlines()
    assert len(said) == 12
    assert "25 x other reasons" in said[0]
    assert "and 6 more reasons" in said[10]


def test_without_an_app_of_the_project_nothing_is_sent(no_app, capsys):
    dead_letter("a")

    assert run("requeue", "--all", "--yes") == 1
    assert "from .celery import app" in capsys.readouterr().err


def test_sudo_does_not_hide_who_it_was(monkeypatch):
    monkeypatch.setenv("SUDO_USER", "alice")
    assert chosen.operator() == "cli:alice"


def test_a_user_without_a_name_is_a_number(monkeypatch):
    for name in ("SUDO_USER", "LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))

    assert chosen.operator() == f"cli:{os.getuid()}"


def test_from_code_a_refusal_is_an_exception(letter):
    letter("a", task_name="gone")

    with pytest.raises(CommandError, match="Refused: 1"):
        call_command("taskkit", "requeue", "--all", "--yes")


def test_the_module_runs_as_a_command():
    """As a person would start it; nothing is there to be requeued."""
    done = subprocess.run(
        [sys.executable, "-m", "django", "taskkit", "requeue", "--help"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert b"--despite-preflight" in done.stdout
