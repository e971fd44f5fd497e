"""Which letters are in a redrive."""

from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.dlq.redrive import creation
from django_taskkit.dlq.redrive.control import cancel
from django_taskkit.dlq.redrive.creation import create_redrive
from django_taskkit.dlq.redrive.progress import is_abandoned
from django_taskkit.models import DeadLetter, Redrive, RedriveMember

pytestmark = pytest.mark.django_db


def members(redrive):
    return list(redrive.members.order_by("pk").values_list("dead_letter_id", flat=True))


def test_every_letter_that_the_queryset_finds_is_in_it(letters, monkeypatch):
    monkeypatch.setattr(creation, "RANGE", 3)
    wanted = letters(10)
    letters(2, task_name="shop.other")

    redrive = create_redrive(DeadLetter.objects.filter(task_name="shop.pay"), selection="--task shop.pay", by="ann")

    assert members(redrive) == [row.pk for row in wanted]
    assert (redrive.total, redrive.left_out, redrive.state) == (10, 0, "running")
    assert (redrive.selection, redrive.created_by, redrive.held_by) == ("--task shop.pay", "ann", "")
    member = redrive.members.first()
    assert (member.state, member.fingerprint, member.generation, member.note) == ("waiting", "f" * 40, 0, "")


@pytest.mark.parametrize("status", ["requeued", "recovered", "discarded"])
def test_a_letter_that_is_not_dead_is_not_in_it(letters, status):
    letters(1, status=status)
    (held,) = letters(1, status="held")

    assert members(create_redrive(DeadLetter.objects.all())) == [held.pk]


def test_a_failure_that_arrives_later_is_not_in_it(letters, monkeypatch):
    """Also not while it is being made, and not when the clock of its worker is late."""
    monkeypatch.setattr(creation, "RANGE", 1)
    early = letters(2)
    insert = creation._insert

    def arrives(*args):
        letters(1)
        DeadLetter.objects.filter(pk=early[1].pk).update(died_at=timezone.now() + timedelta(seconds=1))
        return insert(*args)

    monkeypatch.setattr(creation, "_insert", arrives)

    assert members(create_redrive(DeadLetter.objects.all())) == [early[0].pk]


def test_a_letter_of_another_unfinished_redrive_is_left_out_and_counted(letters):
    letters(2)
    first = create_redrive(DeadLetter.objects.all())
    (new,) = letters(1)

    second = create_redrive(DeadLetter.objects.all())

    assert (members(second), second.total, second.left_out) == ([new.pk], 1, 2)
    cancel(first)
    assert create_redrive(DeadLetter.objects.all()).total == 2


def test_one_that_was_interrupted_while_it_was_made_is_never_run_and_blocks_nothing(letters, clock, monkeypatch):
    letters(3)
    monkeypatch.setattr(creation, "RANGE", 2)
    insert = creation._insert
    calls = []

    def dies(*args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return insert(*args)

    monkeypatch.setattr(creation, "_insert", dies)
    with pytest.raises(KeyboardInterrupt):
        create_redrive(DeadLetter.objects.all(), clock=clock)
    monkeypatch.undo()

    broken = Redrive.objects.get()
    assert (broken.state, broken.total, is_abandoned(broken, clock)) == ("preparing", 2, False)
    clock.forward(31)
    assert is_abandoned(broken, clock)
    assert create_redrive(DeadLetter.objects.all(), clock=clock).total == 3
    assert cancel(broken, "ann")
    broken.refresh_from_db()
    assert (broken.state, broken.why) == ("cancelled", "Cancelled by ann.")


def test_one_that_is_cancelled_while_it_is_made_stays_cancelled(letters, monkeypatch):
    letters(3)
    monkeypatch.setattr(creation, "RANGE", 2)
    insert = creation._insert

    def cancelled(redrive, *args):
        cancel(redrive)
        return insert(redrive, *args)

    monkeypatch.setattr(creation, "_insert", cancelled)

    assert create_redrive(DeadLetter.objects.all()).state == "cancelled"


def test_of_nothing_it_is_empty(db):
    for rows in (DeadLetter.objects.all(), DeadLetter.objects.none(), DeadLetter.objects.filter(pk__in=[])):
        assert create_redrive(rows).total == 0


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_makes_no_sense_is_refused_by_name(rate):
    with pytest.raises(ValueError, match=f"rate is {rate}"):
        create_redrive(DeadLetter.objects.all(), rate=rate)
    assert not Redrive.objects.exists()


def test_a_sliced_queryset_is_refused(letters):
    with pytest.raises(ValueError, match="filter it instead"):
        create_redrive(DeadLetter.objects.all()[:1])


def test_any_queryset_will_do(letters):
    rows = letters(3)
    every = [row.pk for row in rows]
    for chosen in (
        DeadLetter.objects.order_by("-task_name").distinct(),
        DeadLetter.objects.defer("body"),
        DeadLetter.objects.only("pk"),
        DeadLetter.objects.filter(task_name__regex=r"^shop\..*"),
        DeadLetter.objects.filter(exception_class__contains="100%") | DeadLetter.objects.filter(task_name="shop.pay"),
        DeadLetter.objects.filter(events__isnull=True).distinct(),
    ):
        assert members(create_redrive(chosen)) == every
        Redrive.objects.all().delete()


def test_it_takes_a_bounded_number_of_statements_per_range(letters):
    letters(50)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        create_redrive(DeadLetter.objects.all())

    assert len(queries) < 15
    assert RedriveMember.objects.count() == 50
