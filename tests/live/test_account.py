"""Nothing is missing when messages of every fate are sent while processes are killed and servers go away.

The small runs are of the same code as ``make soak``; ``account_table.py`` does one by hand, also without us.
"""

from __future__ import annotations

import os
from collections import Counter
from types import SimpleNamespace

import harness
import pytest
from account import balance, fates, figures, ledger, report
from account.faults import QUICK
from account.run import Result, run

BROKERS = ("redis", "rabbitmq", "rabbitmq-quorum")
SOAK_MESSAGES = int(os.environ.get("SOAK_MESSAGES", "20000"))
SOAK = {"rate": 60, "cap": 600 + SOAK_MESSAGES / 10}


@pytest.fixture
def account(capsys):
    """Run, and show how far it is and the figures, whatever pytest does with other output."""

    def run_and_print(*arguments, **options) -> Result:
        with capsys.disabled():
            print()
            result = run(*arguments, **options)
            print(report.text(result), flush=True)
        return result

    return run_and_print


def nothing_is_missing(result: Result) -> None:
    assert result.is_settled, report.text(result) + "\n" + report.ends(result)


def harmless_tasks_are_not_blamed(result: Result) -> None:
    """A task is dead only for what it did; a few are killed by the faults, time and again."""
    ends = Counter(result.ends["succeeds.a"])
    assert ends["succeeded"] > 0.95 * ends.total(), ends


@pytest.mark.parametrize("broker", BROKERS)
def test_every_message_has_succeeded_or_is_a_dead_letter(account, broker):
    result = account("taskkit", broker, 120, rate=10, pace=QUICK, visibility_timeout=6)

    nothing_is_missing(result)
    harmless_tasks_are_not_blamed(result)
    assert {"broker outages", "database outages", "children killed", "workers killed"} == set(result.faults)


@pytest.mark.soak
@pytest.mark.parametrize("broker", BROKERS)
def test_nothing_is_missing_of_very_many(account, broker):
    result = account("taskkit", broker, SOAK_MESSAGES, **SOAK)

    nothing_is_missing(result)
    harmless_tasks_are_not_blamed(result)


@pytest.mark.soak
def test_what_waits_in_the_outbox_survives_a_redis_that_keeps_nothing(account):
    """What the relay has handed over is the broker's own loss, and counted apart."""
    result = account("taskkit-outbox", "redis", SOAK_MESSAGES // 10, **SOAK, durable=False)

    nothing_is_missing(result)


def test_the_page_shows_the_figures_that_were_kept():
    page = harness.ROOT / "docs" / "nothing-lost.md"

    assert page.read_text() == figures.markdown(), f"run: python tests/live/account_table.py page docs/{page.name}"


def test_every_fate_is_sent_however_few_the_messages_and_in_the_same_order_each_time():
    plan = fates.planned(300, seed=1, toxic=True)

    assert {fate.name for fate in plan} == set(fates.FATES)
    assert plan == fates.planned(300, seed=1, toxic=True)
    assert not any(fate.toxic for fate in fates.planned(300, seed=1, toxic=False))


@pytest.fixture
def stage():
    """Servers that hold what a test puts there."""
    return SimpleNamespace(
        project=SimpleNamespace(ours=True),
        letters=list,
        outbox=Counter,
        spooled=Counter,
        states=dict,
    )


def sent(*events: tuple[str, str]) -> balance.Sent:
    """A chain of two that was sent, and what they noted themselves."""
    first, second = ledger.token(1, "a"), ledger.token(1, "b")
    lines = [{"event": "sending", "item": first, "items": [first, second], "fate": "chain", "at": 0}]
    lines += [{"event": "accepted", "item": first}]
    lines += [{"event": event, "item": ledger.token(1, part)} for event, part in events]
    known = balance.Sent()
    known.take(lines)
    return known


def ends(stage, sent: balance.Sent, **places) -> list[tuple[str, str]]:
    balance.settle(stage, sent, **places)
    return [(item.end, item.detail) for item in sent.items.values()]


def test_an_item_that_is_nowhere_is_missing(stage):
    assert ends(stage, sent(("started", "a"))) == [("missing", ""), ("missing", "")]


def test_a_run_that_came_to_its_end_has_succeeded(stage):
    assert ends(stage, sent(("done", "a"), ("done", "b"))) == [("succeeded", ""), ("succeeded", "")]


def test_a_dead_letter_accounts_for_its_own_item_and_for_those_that_its_message_carries(stage):
    stage.letters = lambda: [(ledger.token(1, "a"), "exception", [ledger.token(1, "a"), ledger.token(1, "b")])]

    assert ends(stage, sent()) == [("dead", "exception"), ("waiting", "behind a dead letter")]


def test_a_message_that_waits_is_not_missing(stage):
    stage.outbox = lambda: Counter([ledger.token(1, "b")])

    queues = {"account": Counter([ledger.token(1, "a")])}
    assert ends(stage, sent(), waiting=queues) == [("waiting", "queue account"), ("waiting", "outbox")]


def test_of_plain_celery_a_failed_state_is_all_that_remains(stage):
    stage.project.ours = False
    stage.states = lambda: {ledger.token(1, "a"): "FAILURE", ledger.token(1, "b"): "RETRY"}

    assert ends(stage, sent()) == [("state only", "FAILURE"), ("missing", "RETRY")]


def test_what_a_broker_without_persistence_held_is_its_own_loss(stage):
    assert ends(stage, sent(), held={ledger.token(1, "a")}) == [("lost by the broker", ""), ("missing", "")]


def test_a_message_that_its_sender_could_not_send_is_not_counted(stage):
    first = ledger.token(1)
    lines = [{"event": "sending", "item": first, "items": [first], "fate": "succeeds", "at": 0}]
    lines += [{"event": "refused", "item": first, "error": "OperationalError: no broker"}]

    refused = balance.Sent()
    refused.take(lines)

    assert not refused.items
    assert refused.refusals == {"OperationalError": 1}


def test_a_line_of_the_ledger_is_read_once_and_when_it_is_whole(tmp_path, monkeypatch):
    path = tmp_path / "ledger"
    monkeypatch.setenv(ledger.FILE_VARIABLE, str(path))
    reader = ledger.Reader(path)
    ledger.note("started", "one")
    path.open("a").write('{"event": "do')

    first = list(reader.new_lines())
    path.open("a").write('ne"}\n')
    second = list(reader.new_lines())

    assert [line["event"] for line in first + second] == ["started", "done"]
