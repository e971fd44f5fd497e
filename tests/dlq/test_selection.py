"""Which dead letters are meant, the same on every database."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.dlq import selection
from django_taskkit.dlq.selection import Selection, newest_first
from django_taskkit.models import DeadLetter
from tests.letters import dead_letter

pytestmark = pytest.mark.django_db


def found(**filters):
    return sorted(Selection(**filters).queryset().values_list("task_id", flat=True))


def test_no_filter_means_what_waits_for_someone():
    for status in ("dead", "held", "requeued", "recovered", "discarded"):
        dead_letter(status, status=status)

    assert found() == ["dead", "held"]
    assert found(status="recovered") == ["recovered"]
    assert len(found(status="")) == 5


def test_what_was_revoked_on_purpose_is_left_out_unless_it_is_asked_for():
    dead_letter("a")
    dead_letter("r", reason="revoked")

    assert found() == ["a"]
    assert found(revoked=True) == ["a", "r"]
    assert found(reason="revoked") == ["r"]
    assert found(ids=("r",)) == ["r"]
    assert Selection().hidden() == 1
    assert Selection(revoked=True).hidden() == 0


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("orders.send", ["orders.send"]),
        ("ORDERS.send", []),
        ("Orders.Send", ["Orders.Send"]),
        ("orders.*", ["orders.send", "orders.send_all"]),
        ("*.send", ["orders.send"]),
        ("o*.s*d", ["orders.send"]),
        ("*", ["Orders.Send", "orders-send", "orders.send", "orders.send_all", "ordersXsend", "tätigkeit (1)+[x]"]),
        ("orders_send", []),
        ("orders%", []),
        ("tätigkeit (1)+[x]", ["tätigkeit (1)+[x]"]),
        ("tät* (1)+[x]", ["tätigkeit (1)+[x]"]),
        ("rders.send", []),
        ("orders-*", ["orders-send"]),
        ("\\w*", []),
    ],
)
def test_a_task_is_named_exactly_or_with_stars(pattern, names):
    everything = ("orders.send", "Orders.Send", "ordersXsend", "orders-send", "orders.send_all", "tätigkeit (1)+[x]")
    for name in everything:
        dead_letter(name, task_name=name)

    assert found(task=pattern) == names


@pytest.mark.parametrize(
    ("pattern", "classes"),
    [
        ("Timeout", ["Timeout", "requests.exceptions.Timeout"]),
        ("requests.exceptions.Timeout", ["requests.exceptions.Timeout"]),
        ("exceptions.Timeout", ["requests.exceptions.Timeout"]),
        ("timeout", []),
        ("Time", []),
        ("Connect*", ["requests.exceptions.ConnectTimeout"]),
        ("*Timeout", ["Timeout", "requests.exceptions.ConnectTimeout", "requests.exceptions.Timeout"]),
        ("requests.*", ["requests.exceptions.ConnectTimeout", "requests.exceptions.Timeout"]),
        ("builtins.ValueError", ["ValueError"]),
    ],
)
def test_an_exception_is_named_with_its_module_or_without(pattern, classes):
    for name in ("Timeout", "requests.exceptions.Timeout", "requests.exceptions.ConnectTimeout", "ValueError"):
        dead_letter(name, exception_class=name)

    assert found(exception=pattern) == classes


def test_a_queue_a_group_and_a_time():
    dead_letter("a", queue="mail", fingerprint="ab12" + "0" * 36, ago=timedelta(hours=3))
    dead_letter("b", queue="Mail", fingerprint="ab34" + "0" * 36, ago=timedelta(hours=1))
    now = timezone.now()

    assert found(queue="mail") == ["a"]
    assert found(queue="*ail") == ["a", "b"]
    assert found(group="ab") == ["a", "b"]
    assert found(group="AB1") == ["a"]
    assert found(since=now - timedelta(hours=2)) == ["b"]
    assert found(until=now - timedelta(hours=2)) == ["a"]
    assert found(since=now - timedelta(hours=4), until=now - timedelta(hours=2), queue="Mail") == []


def test_ids_are_compared_letter_by_letter():
    dead_letter("Ab")
    dead_letter("ab")

    assert found(ids=("ab", "none")) == ["ab"]


@pytest.mark.parametrize(("name", "wrong"), [("status", "deed"), ("reason", "boredom")])
def test_a_status_or_reason_that_does_not_exist_is_refused(name, wrong):
    with pytest.raises(ValueError, match=f"no {name} '{wrong}'; there are .*re"):
        Selection(**{name: wrong})


def test_it_reads_as_the_options_of_the_command_line():
    since = timezone.now()
    chosen = Selection(ids=("a", "b c"), task="orders.*", status="", since=since, revoked=True)

    assert str(chosen) == (f"--id a --id 'b c' --task 'orders.*' --status any --since {since.isoformat()} --revoked")
    assert str(Selection()) == ""


@pytest.fixture
def small_pages(monkeypatch):
    monkeypatch.setattr(selection, "CHUNK", 3)


def test_the_newest_come_first_a_page_at_a_time(small_pages):
    same_time = timezone.now()
    rows = [dead_letter(died_at=same_time) for _ in range(4)]
    rows += [dead_letter(died_at=same_time - timedelta(seconds=number)) for number in (2, 1, 3)]
    expected = [row.pk for row in sorted(rows, key=lambda row: (row.died_at, row.pk), reverse=True)]

    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert [row.pk for row in newest_first(DeadLetter.objects.all())] == expected
    assert all("LIMIT 3" in query["sql"] for query in queries)
