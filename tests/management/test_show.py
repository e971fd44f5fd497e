"""taskkit show: all that is known of one."""

import json
import sys
import types
from datetime import date

import pytest
from kombu.serialization import dumps

from django_taskkit.models import DeadLetterEvent
from tests.letters import dead_letter
from tests.management.test_taskkit import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def shown(capsys, station):
    def shown(*arguments):
        capsys.readouterr()
        assert run("show", *arguments) == 0
        return capsys.readouterr().out

    return shown


@pytest.fixture
def letter(station):
    @station.app.task(name="pay")
    def pay(order, card_number=None, note=None): ...

    row = dead_letter(
        "the-id",
        task_name="pay",
        args=[7, "4111"],
        kwargs={"note": {"password": "hunter2", "text": "a\x1b[2Jb"}},
        exception_class="bank.Declined",
        exception_message="no\nmoney\x1b[31m",
        traceback='Traceback (most recent call last):\n  File "a.py", line 1\nbank.Declined: no\x07\n',
        worker="w1@host",
        release="1.4.2",
        group_id="g-1",
        requeue_count=2,
        body_ran=True,
    )
    row.headers = {**row.headers, "argsrepr": "('4111',)", "kwargsrepr": "hunter2", "x-token": "t0k3n"}
    row.save()
    DeadLetterEvent.objects.create(dead_letter=row, kind="requeued", at=row.died_at, by="ann", note="to queue slow")
    return row


def test_everything_a_person_needs_is_there_and_no_secret(shown, letter):
    text = shown("the-id")

    for part in (
        "pay[the-id]",
        "put back 2 times",
        "bank.Declined",
        "w1@host",
        "1.4.2",
        "g-1",
        "its task had ended well",
        '  File "a.py", line 1',
        "requeued by ann: to queue slow",
        "died: ValueError: no",
        "order        7",
        "card_number  ********",
        "application/json",
        letter.fingerprint,
    ):
        assert part in text, part
    for secret in ("4111", "hunter2", "t0k3n"):
        assert secret not in text


def test_no_escape_sequence_reaches_the_terminal(shown, letter):
    text = shown("the-id")

    assert not set(text) & set(map(chr, [*range(10), *range(11, 32), 127, 0x9B]))
    assert "money\\x1b[31m" in text
    assert "bank.Declined: no\\x07" in text


def test_json_has_the_same(shown, letter):
    facts = json.loads(shown("the-id", "--json"))

    assert facts["arguments"] == {
        "order": 7,
        "card_number": "********",
        "note": {"password": "********", "text": "a\x1b[2Jb"},
    }
    assert facts["message"]["headers"]["x-token"] == "********"
    assert "argsrepr" not in facts["message"]["headers"]
    assert [event["kind"] for event in facts["history"]] == ["died", "requeued"]
    assert facts["traceback"] == letter.traceback
    assert facts["exception_class"] == "bank.Declined"


@pytest.mark.parametrize("how", [(), ("--json",)])
def test_a_body_that_cant_be_decoded_is_said_to_be_so(shown, how):
    dead_letter("a", body=b"\xff\x00", content_type="application/x-python-serialize", content_encoding="binary")

    assert "The arguments can't be shown" in shown("a", *how)


def test_arguments_that_json_does_not_have_are_shown_all_the_same(shown):
    pytest.importorskip("yaml")
    content_type, encoding, body = dumps([[{date(2026, 11, 21): 3}], {"when": None}, {}], "yaml")
    dead_letter("a", body=body.encode(), content_type=content_type, content_encoding=encoding)

    assert "when" in shown("a")
    assert json.loads(shown("a", "--json"))["arguments"]["when"] is None


def test_a_task_without_arguments_and_without_a_traceback(shown):
    dead_letter("a", task_name="", exception_class="", exception_message="")

    text = shown("a")

    assert "(no task)[a]" in text
    assert "Arguments\n  none\n" in text
    assert "Traceback" not in text


def test_an_unknown_id_is_one_sentence_and_the_code_is_1(station, capsys):
    assert run("show", "nothing\x1b[2J") == 1

    said = capsys.readouterr().err
    assert "There is no dead letter with the task id 'nothing\\x1b[2J'" in said
    assert "manage.py taskkit list" in said


def test_a_test_that_makes_the_same_call_can_be_had(shown, letter, monkeypatch):
    reproduction = types.ModuleType("django_taskkit.dlq.reproduction")
    reproduction.as_pytest = lambda row, app: f"def test_{row.task_name}(): ...\n"
    monkeypatch.setitem(sys.modules, "django_taskkit.dlq.reproduction", reproduction)

    assert shown("the-id", "--pytest") == "def test_pay(): ...\n"
