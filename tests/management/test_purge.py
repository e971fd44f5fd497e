"""taskkit purge: what is over and done with goes, and nothing else unless it is told to."""

import json
from datetime import timedelta

import pytest

from django_taskkit.dlq import retention
from django_taskkit.models import DeadLetter, DjangoTaskResult
from tests.letters import dead_letter, finished_result
from tests.management.test_taskkit import run

DAY = timedelta(days=1)

pytestmark = pytest.mark.django_db


@pytest.fixture
def rows():
    for status in ("dead", "held", "requeued", "recovered", "discarded"):
        for days in (5, 50):
            dead_letter(f"{status} {days}", status=status, ago=days * DAY, closed_ago=days * DAY)


def left():
    return set(DeadLetter.objects.values_list("task_id", flat=True))


@pytest.fixture
def purged(rows):
    def purged(*arguments, code=0):
        before = left()
        assert run("purge", *arguments) == code
        return sorted(before - left())

    return purged


def test_it_deletes_what_was_closed_before_the_setting_says(purged, capsys):
    assert purged() == ["discarded 50", "recovered 50"]
    assert "Purged 2 dead letters.\n" in capsys.readouterr().out


def test_the_setting_says_when(purged, settings):
    settings.TASKKIT = {"RETENTION_DAYS": 3}
    assert purged() == ["discarded 5", "discarded 50", "recovered 5", "recovered 50"]


def test_without_the_setting_it_asks_for_an_age(purged, settings, capsys):
    settings.TASKKIT = {"RETENTION_DAYS": None}

    assert purged(code=2) == []
    assert "give --older-than" in capsys.readouterr().err
    assert purged("--older-than", "20d", "--status", "recovered") == ["recovered 50"]


def test_a_dry_run_deletes_nothing(purged, capsys):
    assert purged("--dry-run", "--older-than", "1d") == []
    assert capsys.readouterr().out == "Would purge 4 dead letters.\n"
    assert purged("--dry-run", "--json") == []
    assert json.loads(capsys.readouterr().out) == {"would_purge": 2, "would_purge_results": 0}


def test_dead_ones_go_only_with_status_age_and_yes(purged, capsys):
    assert purged("--status", "dead", "--yes", code=2) == []
    assert purged("--status", "dead", "--older-than", "1d", code=2) == []
    assert "say --yes" in capsys.readouterr().err
    assert purged("--status", "dead", "--older-than", "1d", "--dry-run") == []

    assert purged("--status", "dead", "--older-than", "20d", "--yes") == ["dead 50"]


def test_results_of_djangos_tasks_go_as_well(rows, capsys):
    for days in (5, 50, 60):
        finished_result(f"{days} days", ago=days * DAY)

    assert run("purge", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"would_purge": 2, "would_purge_results": 2}
    assert run("purge", "--status", "recovered") == 0
    assert capsys.readouterr().out == "Purged 1 dead letter.\n"

    assert run("purge") == 0

    assert capsys.readouterr().out == "Purged 1 dead letter and 2 results of Django's tasks.\n"
    assert [row.task_id for row in DjangoTaskResult.objects.all()] == ["5 days"]


@pytest.mark.parametrize("status", ["held", "requeued", "any"])
def test_what_is_still_to_come_cant_be_purged(purged, status, capsys):
    assert purged("--status", status, "--older-than", "1d", "--yes", code=2) == []


def test_it_says_how_much_waits(rows, settings, capsys):
    settings.TASKKIT = {"DEAD_WARN_COUNT": 3}

    assert run("purge", "--json") == 0

    said = capsys.readouterr()
    assert json.loads(said.out) == {"purged": 2, "purged_results": 0}
    assert "More than 3 dead letters wait" in said.err
    assert "has waited for 50 days" in said.err


def test_ctrl_c_says_what_is_gone(rows, monkeypatch, capsys):
    def interrupted(*args, progress, **options):
        progress(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(retention, "purge", interrupted)

    assert run("purge") == 130
    said = capsys.readouterr()
    assert said.out == "Purged 1 dead letter.\n"
    assert "Interrupted" in said.err
