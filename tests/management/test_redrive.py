"""``manage.py taskkit redrive``: make, run, follow, pause, resume and cancel redrives."""

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import timezone

from django_taskkit.dlq import census, transitions
from django_taskkit.dlq.redrive import control
from django_taskkit.dlq.redrive.runner import Runner
from django_taskkit.management import redriving
from django_taskkit.models import DeadLetter, DeadLetterEvent, Redrive, RelayHeartbeat
from django_taskkit.outbox.presence import watch

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nobody_answers(monkeypatch):
    """No relay is known, and no worker is waited for."""
    monkeypatch.setattr(census, "ANSWER_TIMEOUT", 0.01)
    watch.forget()
    yield
    watch.forget()


@pytest.fixture
def cured(station):
    """The task of the letters; empty it, and it fails."""
    cured = ["yes"]

    @station.app.task(name="shop.pay")
    def pay(number):
        if not cured:
            raise ValueError("no")

    return cured


@pytest.fixture
def letters(station, cured):
    def letters(count, task="shop.pay", **values):
        for number in range(count):
            task_id = f"{task}-{number}"
            DeadLetter.objects.create(
                **{
                    "task_id": task_id,
                    "task_name": task,
                    "reason": "exception",
                    "queue": station.queue,
                    "died_at": timezone.now(),
                    "body": json.dumps([[number], {}, {}]).encode(),
                    "content_type": "application/json",
                    "content_encoding": "utf-8",
                    "headers": {"id": task_id, "task": task},
                    **values,
                }
            )

    return letters


@pytest.fixture
def at_each_wait(monkeypatch):
    """Do something wherever the command would sleep."""

    def at_each_wait(action):
        monkeypatch.setattr(redriving.time, "sleep", lambda seconds: action())

    return at_each_wait


class Said(str):
    code = 0


def redrive(*arguments):
    """Run it; return what it said, with its exit code."""
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        call_command("taskkit", "redrive", *arguments, stdout=out, stderr=err)
    except CommandError as exc:
        code = exc.returncode
        err.write(str(exc))
    said = Said(out.getvalue() + err.getvalue())
    said.code = code
    return said


def facts(*arguments):
    out = io.StringIO()
    code = 0
    try:
        call_command("taskkit", "redrive", "--json", *arguments, stdout=out, stderr=io.StringIO())
    except CommandError as exc:
        code = exc.returncode
    return [json.loads(line) for line in out.getvalue().splitlines()], code


def test_it_sends_what_the_filters_name(station, letters):
    letters(3)
    letters(2, task="shop.other")

    said = redrive("--task", "shop.pay", "--yes")

    assert (said.code, station.waiting()) == (0, 3)
    made = Redrive.objects.get()
    assert (made.state, made.sent, made.selection) == ("finished", 3, "--task shop.pay")
    assert made.created_by.startswith("cli:")
    assert f"Redrive {made.pk} is finished: 3 of 3 sent, 0 refused, 0 recovered, 0 failed again, 3 still run." in said


def test_without_a_filter_it_wants_to_hear_all(letters):
    letters(1)

    assert redrive("--yes").code == 2
    assert redrive("--all", "--yes").code == 0


def test_without_a_terminal_it_wants_to_hear_yes(letters):
    letters(1)

    assert redrive("--all").code == 2
    assert not Redrive.objects.exists()


@pytest.mark.parametrize("rate", ["0", "-1", "many", "nan"])
def test_a_rate_that_makes_no_sense_is_refused(rate):
    with pytest.raises(CommandError, match="is no rate"):
        call_command("taskkit", "redrive", "--all", f"--rate={rate}")


def test_a_dry_run_says_what_preflight_finds_and_does_nothing(station, letters):
    letters(2)
    letters(1, task="shop.gone")

    said = redrive("--all", "--dry-run")

    assert "Would redrive 3 dead letters." in said
    assert "1 red" in said
    assert "shop.gone" in said
    assert (station.waiting(), Redrive.objects.count()) == (0, 0)


def test_what_is_refused_is_said_with_the_reason_and_by_the_exit_code(letters):
    letters(2)
    letters(3, task="shop.gone")

    said = redrive("--all", "--yes")

    assert said.code == 1
    assert "2 of 5 sent, 3 refused" in said
    assert "refused: 3 x No task is registered under the name shop.gone." in said


def test_it_takes_the_options_of_a_redrive(letters):
    letters(1)

    redrive(
        *("--all", "--yes", "--detach", "--rate", "2.5", "--canary", "--to-queue", "slow", "--not-before", "2h"),
        *("--despite-preflight", "--even-if-ran", "--reset-results"),
    )

    made = Redrive.objects.get()
    assert (made.rate, made.canary, made.queue, made.despite_preflight, made.even_if_ran) == (
        2.5,
        True,
        "slow",
        True,
        True,
    )
    assert made.reset_results
    assert made.not_before > timezone.now()


class TestDetached:
    def test_it_leaves_all_to_the_relay(self, station, letters):
        RelayHeartbeat.objects.create(name="r", started_at=timezone.now(), seen_at=timezone.now())
        letters(2)

        said = redrive("--all", "--yes", "--detach")

        made = Redrive.objects.get()
        assert (said.code, made.state, made.held_by, station.waiting()) == (0, "running", "", 0)
        assert f"The relay goes on with redrive {made.pk}" in said

    def test_without_a_relay_it_says_what_to_do(self, letters):
        letters(1)

        said = redrive("--all", "--yes", "--detach")

        assert "No relay has been seen for two minutes" in said
        assert f"redrive --resume {Redrive.objects.get().pk}" in said


class TestWatch:
    def test_it_waits_until_all_that_was_sent_has_ended(self, station, letters, at_each_wait):
        letters(3)
        redrive("--all", "--yes")
        at_each_wait(station.run_next)

        said = redrive("--watch", str(Redrive.objects.get().pk))

        assert said.code == 0
        assert "3 of 3 sent, 0 refused, 3 recovered, 0 failed again, 0 still run." in said

    def test_a_failure_is_told_by_the_exit_code(self, station, letters, at_each_wait, cured):
        letters(1)
        redrive("--all", "--yes")
        cured.clear()
        at_each_wait(station.run_next)

        said = redrive("--watch", str(Redrive.objects.get().pk))

        assert said.code == 1
        assert "1 failed again" in said

    def test_ctrl_c_ends_nothing_but_the_watching(self, letters, at_each_wait):
        def interrupt():
            raise KeyboardInterrupt

        letters(1)
        redrive("--all", "--yes", "--detach")
        at_each_wait(interrupt)

        assert redrive("--watch", str(Redrive.objects.get().pk)).code == 130
        assert Redrive.objects.get().state == "running"


class TestControl:
    def test_it_is_paused_and_resumed_by_number(self, station, letters):
        letters(2)
        redrive("--all", "--yes", "--detach")
        pk = str(Redrive.objects.get().pk)

        assert "is paused" in redrive("--pause", pk)
        assert redrive("--pause", pk).code == 1
        assert Redrive.objects.get().why.startswith("Paused by cli:")
        assert "is finished: 2 of 2 sent" in redrive("--resume", pk)
        assert station.waiting() == 2
        assert redrive("--resume", pk).code == 1

    def test_it_is_resumed_for_the_relay(self, station, letters):
        letters(2)
        redrive("--all", "--yes", "--detach")
        pk = str(Redrive.objects.get().pk)
        redrive("--pause", pk)

        assert redrive("--resume", pk, "--detach").code == 0
        assert (Redrive.objects.get().state, station.waiting()) == ("running", 0)

    def test_it_is_cancelled_by_number(self, letters):
        letters(2)
        redrive("--all", "--yes", "--detach")
        pk = str(Redrive.objects.get().pk)

        assert "is cancelled" in redrive("--cancel", pk)
        assert redrive("--cancel", pk).code == 1

    def test_what_another_process_does_is_obeyed(self, station, letters, at_each_wait):
        letters(5)
        at_each_wait(lambda: control.cancel(Redrive.objects.get(), "ben"))

        said = redrive("--all", "--yes", "--rate", "0.1")

        assert (said.code, station.waiting()) == (1, 1)
        assert "Cancelled by ben." in said

    def test_a_number_that_there_is_none_of(self):
        for verb in ("--watch", "--pause", "--resume", "--cancel"):
            said = redrive(verb, "99")
            assert said.code == 2
            assert "There is no redrive 99" in said


def test_ctrl_c_gives_it_to_the_relay_and_says_how_to_go_on(letters, at_each_wait):
    def interrupt():
        raise KeyboardInterrupt

    letters(3)
    at_each_wait(interrupt)

    said = redrive("--all", "--yes", "--rate", "0.1")

    made = Redrive.objects.get()
    assert (said.code, made.state, made.held_by) == (130, "running", "")
    assert f"--resume {made.pk}" in said


def test_a_database_that_is_locked_for_a_moment_is_waited_for(station, letters, at_each_wait, monkeypatch):
    letters(2)
    step = Runner.step
    failures = [OperationalError("database is locked")] * 3

    def locked(self):
        if failures:
            raise failures.pop()
        return step(self)

    monkeypatch.setattr(Runner, "step", locked)
    monkeypatch.setattr(redriving, "forget_connection", lambda using: None)  # it is the one of this test
    at_each_wait(lambda: None)

    assert redrive("--all", "--yes").code == 0
    assert station.waiting() == 2


def test_a_database_that_is_gone_for_good_ends_the_command(letters, at_each_wait, monkeypatch):
    def gone(self):
        raise OperationalError("gone")

    letters(1)
    monkeypatch.setattr(Runner, "step", gone)
    monkeypatch.setattr(redriving, "forget_connection", lambda using: None)
    at_each_wait(lambda: None)

    with pytest.raises(OperationalError, match="gone"):
        redrive("--all", "--yes")


def test_a_canary_that_stops_says_why_and_how_to_go_on(station, letters, at_each_wait, cured):
    letters(9, fingerprint="")
    # What the letters died of, as the recorder would have written it down.
    cured.clear()
    transitions.requeue(DeadLetter.objects.all())
    station.run_all()
    assert DeadLetter.objects.filter(status="dead").count() == 9
    at_each_wait(station.run_next)

    said = redrive("--all", "--yes", "--canary")

    made = Redrive.objects.get()
    assert (said.code, made.state, made.sent) == (1, "stopped", 1)
    assert "1 of the 1 messages that were sent died of the same failure again: shop.pay, ValueError" in said
    assert f"--resume {made.pk}" in said

    cured.append("yes")
    said = redrive("--resume", str(made.pk))

    assert said.code == 0
    assert f"Redrive {made.pk} is finished: 9 of 9 sent" in said


def test_of_nothing_no_redrive_is_made(letters):
    letters(1)

    said = redrive("--task", "shop.typo", "--yes")
    unknown = redrive("--id", "nope", "--yes")

    assert (said.code, said) == (0, "No dead letter matches.\n")
    assert unknown.code == 1
    assert "no dead letter with this id matches: nope" in unknown
    assert facts("--task", "shop.typo", "--yes") == ([{"id": None, "total": 0}], 0)
    assert not Redrive.objects.exists()


def test_tasks_that_were_revoked_are_said_to_be_left_out(letters):
    letters(2, reason="revoked")
    letters(1, task="shop.other")

    assert "Left out, since revoked: 2 tasks; see --revoked." in redrive("--all", "--dry-run")


def test_a_queue_that_nobody_reads_is_said_before_anything_is_sent(letters):
    letters(1)

    assert "No worker" in redrive("--all", "--to-queue", "celary")
    assert not Redrive.objects.exists()


def test_json_has_one_line_at_the_start_and_one_at_the_end(letters):
    letters(2)
    letters(1, task="shop.gone")

    (first, last), code = facts("--all", "--yes")

    assert code == 1
    assert (first["state"], first["total"], first["sent"]) == ("running", 3, 0)
    assert (last["state"], last["sent"], last["refused"], last["running"]) == ("finished", 2, 1, 2)
    assert list(last["refusals"].values()) == [1]


def test_the_list_shows_the_latest_first(letters):
    assert "There is no redrive." in redrive("--list")
    letters(1)
    redrive("--all", "--yes")
    letters(1, task="shop.other")
    redrive("--task", "shop.other", "--yes", "--detach")
    Redrive.objects.filter(selection="--all").update(created_by="\x1b[2J")

    lines = redrive("--list").splitlines()

    assert [line.split()[1] for line in lines] == ["STATE", "running", "finished"]
    assert "\\x1b[2J" in lines[2]
    assert [fact["selection"] for fact in facts("--list")[0]] == ["--task shop.other", "--all"]


def test_one_whose_making_was_interrupted_is_shown_as_such():
    Redrive.objects.create(created_at=timezone.now())

    assert "preparing (interrupted; cancel it)" in redrive("--list")
    assert redrive("--watch", str(Redrive.objects.get().pk)).code == 0


def test_a_redrive_is_in_the_history_of_its_letters(letters):
    letters(1)
    redrive("--all", "--yes")

    by = DeadLetterEvent.objects.get(kind="requeued").by
    assert by == f"{Redrive.objects.get().created_by} (redrive {Redrive.objects.get().pk})"
