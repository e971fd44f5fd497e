"""taskkit discard: what will not run any more; asking and choosing are as for requeue, and tested there."""

import json

import pytest

from django_taskkit.models import DeadLetter, DeadLetterEvent
from tests.letters import dead_letter
from tests.management.test_taskkit import run

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("station")]


def statuses():
    return dict(DeadLetter.objects.values_list("task_id", "status"))


def test_what_the_filters_name_is_closed_with_who_and_why(capsys, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "alice")
    dead_letter("a", reason="expired")
    dead_letter("b")
    dead_letter("h", reason="expired", status="held")

    assert run("discard", "--reason", "expired", "--note", "too late now", "--yes") == 0

    assert capsys.readouterr().out == "Discarded 2 of 2 dead letters.\n"
    assert statuses() == {"a": "discarded", "b": "dead", "h": "discarded"}
    event = DeadLetterEvent.objects.get(dead_letter__task_id="a", kind="discarded")
    assert (event.by, event.note) == ("cli:alice", "too late now")


def test_what_got_lost_is_closed_by_force(capsys):
    dead_letter("lost", status="requeued")

    assert run("discard", "--id", "lost", "--yes") == 1
    assert "requeued by now (lost)" in capsys.readouterr().err
    assert run("discard", "--status", "requeued", "--queue", "orders", "--force", "--yes") == 0
    assert statuses() == {"lost": "discarded"}


def test_json_has_the_counts(capsys):
    dead_letter("a")

    assert run("discard", "--id", "a", "--yes", "--json") == 0

    assert json.loads(capsys.readouterr().out) == {"discarded": 1, "refused": 0, "not_tried": 0}


def test_it_needs_no_broker(no_app):
    dead_letter("a")

    assert run("discard", "--all", "--yes") == 0
