"""What became of what was sent."""

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from django_taskkit.dlq import discard, requeue
from django_taskkit.dlq.redrive import outcomes
from django_taskkit.dlq.redrive.outcomes import Outcomes
from django_taskkit.models import DeadLetter, Redrive

pytestmark = pytest.mark.django_db


@pytest.fixture
def sent(letters, cure, redrive, runner):
    """A redrive that was sent, and its letters."""

    def sent(count):
        rows = letters(count)
        made = redrive()
        while runner(made).step().sent:
            pass
        Redrive.objects.update(held_by="")
        return made, rows

    return sent


def change(rows, **values):
    DeadLetter.objects.filter(pk__in=[row.pk for row in rows]).update(**values)


def tally(redrive):
    row = Redrive.objects.get(pk=redrive.pk)
    return row.recovered, row.failed_again, row.same_again


def test_each_outcome_is_counted_once(sent):
    made, rows = sent(6)
    change(rows[0:2], status="recovered")
    change(rows[2:3], status="dead")
    change(rows[3:4], status="held", fingerprint="e" * 40)
    change(rows[4:5], status="discarded")
    look, other = Outcomes(made.pk), Outcomes(made.pk)

    assert (look.settle(), other.settle(), look.settle()) == (5, 0, 0)
    assert tally(made) == (2, 3, 1)


def test_two_that_look_at_once_count_once(sent, monkeypatch):
    made, rows = sent(3)
    change(rows, status="recovered")
    first, second = Outcomes(made.pk), Outcomes(made.pk)
    atomic = outcomes.transaction.atomic
    looks = []

    def meanwhile(*args, **options):
        if not looks:
            looks.append(None)
            looks[0] = second.settle()
        return atomic(*args, **options)

    monkeypatch.setattr(outcomes.transaction, "atomic", meanwhile)

    assert (first.settle(), looks) == (0, [3])
    assert tally(made) == (3, 0, 0)


def test_one_that_somebody_requeued_after_it_had_failed_stays_failed(sent):
    made, rows = sent(2)
    change(rows, status="dead")
    requeue(rows[0])
    change(rows[:1], status="recovered")

    Outcomes(made.pk).settle()

    assert tally(made) == (0, 2, 1)


def test_one_that_was_lost_and_discarded_is_no_success(sent):
    made, rows = sent(1)
    discard(rows, force=True)

    Outcomes(made.pk).settle()

    assert tally(made) == (0, 1, 0)


def test_what_runs_for_long_does_not_hide_what_has_ended_behind_it(sent):
    made, rows = sent(5)
    change(rows[4:], status="recovered")
    look = Outcomes(made.pk)

    assert [look.settle(2) for _ in range(4)] == [0, 0, 1, 0]


def test_it_looks_at_each_once_as_long_as_there_is_time(sent, monkeypatch):
    made, rows = sent(5)
    monkeypatch.setattr(Outcomes.settle, "__defaults__", (2,))
    look = Outcomes(made.pk)
    change(rows, status="recovered")
    times = iter([0, 1, 10])

    assert look.settle_for(5, clock=lambda: next(times)) == 4
    assert look.settle_for(5, clock=lambda: 0) == 1


def test_it_looks_at_the_first_on_demand(sent):
    made, rows = sent(5)
    look = Outcomes(made.pk)
    look.settle(2)
    change(rows, status="recovered")

    assert look.settle_first(1_000) == 5


def test_counts_outlive_the_letters(sent):
    made, rows = sent(3)
    change(rows, status="recovered")
    Outcomes(made.pk).settle()

    DeadLetter.objects.all().delete()

    assert tally(made) == (3, 0, 0)


def test_a_look_takes_one_statement_when_nothing_has_ended_and_six_otherwise(sent):
    made, rows = sent(20)
    look = Outcomes(made.pk)

    with CaptureQueriesContext(connection) as queries:
        look.settle()
    assert len(queries) == 1
    change(rows, status="recovered")
    with CaptureQueriesContext(connection) as queries:
        look.settle()
    assert len(queries) <= 7
