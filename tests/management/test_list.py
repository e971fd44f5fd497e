"""taskkit list: which dead letters there are."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta

import pytest
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_taskkit.management.list import age, what_happened
from django_taskkit.models import DeadLetter
from tests.letters import dead_letter
from tests.management.test_taskkit import run

pytestmark = pytest.mark.django_db


@pytest.fixture
def listed(capsys):
    def listed(*arguments):
        """Return the lines on standard output and what is on standard error."""
        capsys.readouterr()
        assert run("list", *arguments) == 0
        said = capsys.readouterr()
        return said.out.splitlines(), said.err

    return listed


def test_the_newest_come_first_in_whole_lines(listed):
    dead_letter("old", ago=timedelta(hours=5), task_name="orders.send", exception_message="the  card\nwas declined")
    dead_letter("new", ago=timedelta(minutes=3), exception_class="requests.exceptions.Timeout")

    lines, said = listed()

    assert lines == [
        "TASK ID  DIED  TASK         WHAT HAPPENED",
        "new      3m    orders.send  Timeout: no",
        "old      5h    orders.send  ValueError: the card was declined",
    ]
    assert said == ""


def test_a_reason_that_the_exception_does_not_tell_stands_before_it(listed):
    dead_letter("late", reason="deadline", exception_class="requests.exceptions.Timeout")
    dead_letter("hopeless", reason="permanent", exception_class="shop.errors.CardDeclined")
    dead_letter("said", reason="permanent", exception_class="django_taskkit.base_tasks.verdicts.Permanent")

    happened = {line.split()[0]: line.split("  ")[-1].strip() for line in listed()[0]}

    assert happened["late"] == "deadline: Timeout: no"
    assert happened["hopeless"] == "permanent: CardDeclined: no"
    assert happened["said"] == "Permanent: no"


def test_the_filters_apply(listed):
    dead_letter("a", task_name="mail.send")
    dead_letter("b")

    assert [line.split()[0] for line in listed("--task", "mail.*")[0]] == ["TASK", "a"]


def test_nothing_is_no_error(listed):
    assert listed() == ([], "No dead letter matches.\n")
    assert listed("--json") == ([], "")


def test_what_is_left_out_is_said_beside_the_list(listed):
    for _ in range(4):
        dead_letter()
    dead_letter(reason="revoked")

    lines, said = listed("--limit", "3")

    assert len(lines) == 4
    assert said == "3 of 4 dead letters; --all lists them all.\n1 task that was revoked is left out; see --revoked.\n"
    assert listed("--all", "--revoked")[1] == ""
    assert len(listed("--all", "--revoked")[0]) == 6


def test_fifty_are_the_limit(listed):
    for _ in range(52):
        dead_letter()

    assert len(listed("--json")[0]) == 50
    assert len(listed("--json", "--all")[0]) == 52


def test_held_ones_and_any_status_are_marked(listed):
    dead_letter("h", status="held")
    assert listed()[0][1].endswith("held: ValueError: no")

    dead_letter("d", status="discarded")
    lines = listed("--status", "any")[0]
    assert {tuple(line.split()[i] for i in (0, 2)) for line in lines[1:]} == {("d", "discarded"), ("h", "held")}


def test_json_has_the_facts_but_no_argument(listed):
    row = dead_letter("a", kwargs={"password": "hunter2"}, traceback="Traceback hunter2")

    [line] = listed("--json")[0]

    assert "hunter2" not in line
    facts = json.loads(line)
    assert facts["task_id"] == "a"
    assert facts["died_at"] == row.died_at.isoformat()
    assert {"task_name", "status", "reason", "queue", "fingerprint", "body_ran", "requeue_count"} <= set(facts)


def test_groups_are_counted_the_most_frequent_first(listed):
    for hours in (1, 5, 3):
        dead_letter(fingerprint="ab" * 20, exception_class="Boom", ago=timedelta(hours=hours))
    dead_letter(
        fingerprint="cd" * 20, task_name="mail.send", ago=timedelta(hours=2), exception_class="", reason="expired"
    )
    dead_letter(status="recovered")

    lines, _said = listed("--groups")

    assert lines == [
        "COUNT  GROUP         LAST  FIRST  TASK         EXCEPTION",
        "3      abababababab  60m   5h     orders.send  Boom",
        "1      cdcdcdcdcdcd  2h    2h     mail.send    expired",
    ]
    first, second = map(json.loads, listed("--groups", "--json")[0])
    assert (first["count"], first["fingerprint"], first["exception_class"]) == (3, "ab" * 20, "Boom")
    assert first["first"] < first["last"]
    assert second["task_name"] == "mail.send"
    assert len(listed("--group", lines[1].split()[1])[0]) == 4
    assert "1 of 2 groups" in listed("--groups", "--limit", "1")[1]


@pytest.mark.parametrize("limit", ["0", "-3"])
def test_a_limit_is_one_or_more(limit, capsys):
    assert run("list", "--limit", limit) == 2
    assert f"--limit is {limit}" in capsys.readouterr().err


def test_text_from_workers_cant_reach_the_terminal(listed):
    dead_letter("a\x1b[2J", exception_message="\x1b]0;owned\x07 \u202e", task_name="t\n")

    assert "\x1b" not in "".join(listed()[0])
    assert "\\x1b]0;owned\\x07" in listed()[0][1]
    assert len(listed()[0]) == 2


def test_no_body_is_read(listed):
    for _ in range(3):
        dead_letter()

    with CaptureQueriesContext(connection) as queries:
        listed()

    assert not [query["sql"] for query in queries if "body" in query["sql"].replace("body_ran", "")]
    assert len(queries) <= 3  # the page, how many were revoked, and on SQLite a setting of the connection


def test_without_time_zones_ages_are_right_as_well():
    with override_settings(USE_TZ=False):
        assert age(datetime.now() - timedelta(hours=3)) == "3h"


def test_a_row_without_an_exception_says_its_reason():
    assert what_happened(DeadLetter(reason="expired")) == "expired"


SCRIPT = """
import sys
import django
from django.core.management.base import OutputWrapper
from django_taskkit.management.terminal import Output
class Command: pass
out = Output(OutputWrapper(sys.stdout))
count = 0
while not out.closed and count < 1_000_000:
    out.line("x" * 100)
    count += 1
out.flush()
print("closed" if out.closed else "open", count < 1_000_000, file=sys.stderr)
"""


def test_a_reader_that_goes_away_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
    )
    process.stdout.readline()
    process.stdout.close()

    said = process.stderr.read().decode()
    process.stderr.close()

    assert process.wait(60) == 0
    assert said == "closed True\n"
