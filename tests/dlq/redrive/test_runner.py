"""A redrive is run a chunk at a time, by one runner, and survives each of them."""

from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.dlq import requeue, transitions
from django_taskkit.dlq.publisher import BrokerUnreachableError
from django_taskkit.dlq.redrive import control, lease
from django_taskkit.dlq.redrive import runner as runner_module
from django_taskkit.dlq.redrive.chunk import name_of
from django_taskkit.models import DeadLetter, DeadLetterEvent, Redrive, RedriveMember

pytestmark = pytest.mark.django_db


class Killed(BaseException):
    """What a SIGKILL does to the Python code that it hits: nothing after it runs."""


def run(runner):
    """Run it until it has nothing to do any more; the clock stands still."""
    while (step := runner.step()).sent or step.refused:
        pass
    return step


def numbers(station):
    import json

    found = []
    while (message := station.take()) is not None:
        found.append(json.loads(message.body)[0][0])
    return found


def test_all_of_it_is_sent_and_what_becomes_of_it_is_counted(station, cure, die, redrive, runner, counts):
    die(5)
    made = redrive(by=get_user_model()(username="ann"))
    cure.error, cure.of = None, {3: KeyError}

    run(runner(made))
    assert counts(made) == ("finished", 5, 0, 0, 0)
    station.run_all()

    watch = runner(made).outcomes
    assert (watch.settle(), watch.settle()) == (5, 0)
    assert counts(made) == ("finished", 5, 0, 4, 1)
    row = Redrive.objects.get()
    assert row.started_at <= row.ended_at
    assert (row.held_by, row.same_again) == ("", 0)
    assert {event.by for event in DeadLetterEvent.objects.filter(kind="requeued")} == {f"ann (redrive {made.pk})"}
    assert set(RedriveMember.objects.values_list("generation", flat=True)) == {1}


def test_what_is_sent_is_counted_also_where_the_clock_is_behind_that_of_who_made_it(
    letters, cure, redrive, runner, counts
):
    letters(3)
    made = redrive(clock=lambda: timezone.now() + timedelta(minutes=5))

    run(runner(made))

    assert counts(made) == ("finished", 3, 0, 0, 0)


def test_an_imported_history_of_a_redrive_of_the_same_name_is_not_its_own(station, letters, cure, redrive, runner):
    (letter,) = letters(1, requeue_count=1)
    made = redrive(by="ann")
    letter.events.create(kind="requeued", at=timezone.now(), by=name_of(made), generation=1)

    run(runner(made))

    assert station.waiting() == 1
    assert RedriveMember.objects.get().generation == 2


def test_a_chunk_is_sent_in_the_order_of_the_letters(station, letters, cure, redrive, runner):
    letters(7)
    running = runner(redrive())

    assert [running.step(3).sent for _ in range(3)] == [3, 3, 1]
    assert numbers(station) == list(range(7))


def test_a_letter_that_somebody_else_requeued_meanwhile_is_refused_with_the_reason(
    letters, cure, redrive, runner, counts
):
    first, _second = letters(2)
    made = redrive()
    requeue(first)

    run(runner(made))

    assert counts(made) == ("finished", 1, 1, 0, 0)
    assert "requeued" in RedriveMember.objects.get(state="refused").note


def test_a_failure_that_came_after_a_requeue_by_somebody_else_is_not_in_it(station, die, redrive, runner, counts):
    first, _second = die(2)
    made = redrive()
    requeue(first)
    station.run_next()
    assert DeadLetter.objects.get(pk=first.pk).status == "dead"

    run(runner(made))

    assert counts(made) == ("finished", 1, 1, 0, 0)
    assert made.members.get(state="refused").dead_letter == first
    assert made.members.get(state="refused").note == "it was requeued meanwhile, and died again"


def test_what_preflight_calls_red_is_refused_unless_forced(letters, cure, redrive, runner, counts, station):
    letters(1)
    (unknown,) = letters(1, task_name="shop.gone", headers={"id": "gone", "task": "shop.gone"})
    made = redrive()

    run(runner(made))

    assert counts(made) == ("finished", 1, 1, 0, 0)
    assert "shop.gone" in RedriveMember.objects.get(dead_letter=unknown).note
    unknown.refresh_from_db()
    assert unknown.status == "dead"
    forced = redrive(despite_preflight=True)
    run(runner(forced))
    assert counts(forced) == ("finished", 1, 0, 0, 0)


def test_a_task_that_had_ended_well_is_sent_only_on_demand(letters, cure, redrive, runner, counts):
    letters(1, body_ran=True)
    careful = redrive()
    run(runner(careful))
    assert counts(careful) == ("finished", 0, 1, 0, 0)

    bold = redrive(even_if_ran=True)
    run(runner(bold))
    assert counts(bold) == ("finished", 1, 0, 0, 0)


def test_it_goes_to_another_queue(station, letters, cure, redrive, runner):
    letters(2, queue="elsewhere")

    run(runner(redrive(queue=station.queue)))

    assert station.waiting() == 2


def test_messages_are_sent_at_the_rate(letters, cure, redrive, runner, clock):
    letters(30)
    running = runner(redrive(rate=10))

    sent = []
    for _ in range(8):
        sent.append(running.step().sent)
        clock.forward(0.5)

    assert sent == [1, 5, 5, 5, 5, 5, 4, 0]


def test_a_runner_that_takes_over_sends_no_burst(letters, cure, redrive, runner, clock):
    letters(100)
    made = redrive(rate=10)
    runner(made).step()
    clock.forward(600)

    assert runner(made).step().sent == 1


def test_refusals_cost_nothing_of_the_rate(letters, cure, redrive, runner, counts):
    letters(5, body_ran=True)
    letters(1)

    made = redrive(rate=1)
    run(runner(made))

    assert counts(made)[1:3] == (1, 5)


class TestControl:
    def test_a_pause_takes_effect_before_the_next_chunk_and_a_resume_goes_on(
        self, letters, cure, redrive, runner, counts
    ):
        letters(4)
        made = redrive()
        running = runner(made)
        running.step(1)

        assert control.pause(made, "ben")
        assert not running.step(1).ours
        assert counts(made)[:2] == ("paused", 1)
        assert Redrive.objects.get().why == "Paused by ben."
        assert not control.pause(made)
        assert control.resume(made)
        assert not control.resume(made)
        run(running)
        assert counts(made)[:2] == ("finished", 4)
        assert Redrive.objects.get().why == ""

    def test_what_is_cancelled_is_never_sent(self, station, letters, cure, redrive, runner, counts):
        letters(4)
        made = redrive()
        runner(made).step(1)

        assert control.cancel(made, "ben")
        assert not control.resume(made)
        assert not control.cancel(made)
        assert not runner(made).step().ours
        assert station.waiting() == 1
        assert counts(made)[:2] == ("cancelled", 1)

    def test_what_is_finished_can_not_be_paused_or_cancelled(self, redrive, runner, counts):
        made = redrive()
        run(runner(made))

        assert (control.pause(made), control.cancel(made), control.resume(made)) == (False, False, False)
        assert counts(made)[0] == "finished"

    def test_one_that_is_being_made_is_not_run(self, letters, redrive, runner):
        letters(1)
        made = redrive()
        Redrive.objects.update(state="preparing")

        assert not runner(made).step().ours


class TestTwoRunners:
    def test_only_one_has_it(self, letters, cure, redrive, runner):
        letters(4)
        made = redrive()
        first, second = runner(made), runner(made)

        assert first.step(1).ours
        assert not second.step(1).ours
        assert first.step(1).sent == 1

    def test_whoever_made_it_has_it_first(self, letters, cure, redrive, runner, clock):
        letters(1)
        made = redrive(holder="me", clock=clock)

        assert not runner(made).step().ours
        assert runner(made, holder="me").step().sent == 1

    def test_the_other_goes_on_when_the_first_is_silent(self, letters, cure, redrive, runner, clock, counts):
        letters(4)
        made = redrive()
        first, second = runner(made), runner(made)
        first.step(1)
        clock.forward(lease.LEASE.total_seconds() + 1)

        assert second.step(1).sent == 1
        assert not first.step(1).ours
        run(second)
        assert counts(made)[:3] == ("finished", 4, 0)

    def test_a_chunk_that_two_send_in_spite_of_the_lease_is_sent_and_counted_once(
        self, station, letters, cure, redrive, runner, clock, counts, monkeypatch
    ):
        """A runner that was suspended in the middle of a chunk, and is woken when another has it."""
        letters(6)
        made = redrive()
        slow, quick = runner(made), runner(made)
        requeued = transitions.requeue

        def suspended(*args, **options):
            monkeypatch.setattr(transitions, "requeue", requeued)
            clock.forward(60)
            assert quick.step(4).sent == 4
            return requeued(*args, **options)

        monkeypatch.setattr(transitions, "requeue", suspended)

        assert slow.step(3) == runner_module.Step(ours=True)
        run(quick)
        assert numbers(station) == list(range(6))
        assert counts(made)[:3] == ("finished", 6, 0)


class TestKilled:
    @pytest.mark.parametrize("place", ["before", "after"])
    def test_around_a_requeue_nothing_is_sent_twice_or_lost(
        self, station, letters, cure, redrive, runner, clock, counts, monkeypatch, place
    ):
        letters(5)
        made = redrive(by="ann")
        requeued = transitions.requeue

        def killed(*args, **options):
            if place == "after":
                requeued(*args, **options)
            raise Killed

        monkeypatch.setattr(transitions, "requeue", killed)
        with pytest.raises(Killed):
            runner(made).step(3)
        monkeypatch.undo()
        assert counts(made)[:3] == ("running", 0, 0)

        clock.forward(60)
        run(runner(made))

        assert counts(made)[:3] == ("finished", 5, 0)
        assert numbers(station) == list(range(5))

    def test_when_the_messages_have_ended_before_another_goes_on(
        self, station, die, cure, redrive, runner, clock, counts, monkeypatch
    ):
        die(3)
        cure.of, cure.error = {1: KeyError}, None
        made = redrive()
        requeued = transitions.requeue

        def killed(*args, **options):
            requeued(*args, **options)
            raise Killed

        monkeypatch.setattr(transitions, "requeue", killed)
        with pytest.raises(Killed):
            runner(made).step()
        monkeypatch.undo()
        station.run_all()
        clock.forward(60)
        other = runner(made)
        run(other)
        other.outcomes.settle()

        assert sorted(cure.runs) == [0, 1, 2], "none ran twice"
        assert counts(made) == ("finished", 3, 0, 2, 1)

    def test_a_database_that_was_away_for_a_moment_makes_the_same_runner_send_nothing_twice(
        self, station, die, cure, redrive, runner, counts, monkeypatch
    ):
        """The messages die once more before the runner has noted that it sent them."""
        die(3)
        running = runner(redrive())
        requeued = transitions.requeue

        def away(*args, **options):
            requeued(*args, **options)
            raise OperationalError("server closed the connection")

        monkeypatch.setattr(transitions, "requeue", away)
        with pytest.raises(OperationalError):
            running.step()
        monkeypatch.undo()
        station.run_all()
        run(running)
        station.run_all()
        running.outcomes.settle()

        assert sorted(cure.runs) == [0, 1, 2]
        assert counts(Redrive.objects.get()) == ("finished", 3, 0, 0, 3)

    def test_a_message_that_was_published_while_its_commit_failed_counts_as_sent(
        self, station, die, cure, redrive, runner, counts
    ):
        (letter,) = die(1)
        made = redrive()
        cure.error = None
        # What is left when the database goes away after the broker has taken the message: no trace of the requeue.
        requeue(letter)
        DeadLetterEvent.objects.filter(kind="requeued").delete()
        DeadLetter.objects.update(status="dead", requeue_count=0)
        station.run_all()

        running = runner(made)
        run(running)
        running.outcomes.settle()

        assert counts(made) == ("finished", 1, 0, 1, 0)

    def test_a_requeue_of_somebody_else_is_not_taken_for_the_own(self, letters, cure, redrive, runner, counts):
        (letter,) = letters(1)
        made = redrive(by="ann")
        requeue(letter, by="ann")

        run(runner(made))

        assert counts(made)[:3] == ("finished", 0, 1)


class TestBrokerAway:
    @pytest.fixture
    def away(self, monkeypatch):
        from django_taskkit.dlq.publisher import Publisher

        def away(self):
            raise BrokerUnreachableError("the broker can't be reached: no route")

        monkeypatch.setattr(Publisher, "connect", away)
        return lambda: monkeypatch.undo()

    def test_members_go_on_waiting_and_it_says_why(self, letters, cure, redrive, runner, counts, away, clock):
        letters(3)
        made = redrive()
        running = runner(made)

        assert running.step().wait
        assert counts(made)[:3] == ("running", 0, 0)
        assert "no route" in Redrive.objects.get().why
        away()
        assert running.step().sent == 0, "it is not tried again at once"
        clock.forward(1)
        run(running)
        assert counts(made)[:3] == ("finished", 3, 0)
        assert Redrive.objects.get().why == ""


def test_a_letter_that_is_deleted_meanwhile_does_not_keep_it_from_ending(letters, cure, redrive, runner, counts):
    first, *_rest = letters(3)
    made = redrive()
    first.delete()

    run(runner(made))

    assert counts(made)[:3] == ("finished", 2, 1)


def test_an_odd_letter_that_preflight_stumbles_over_holds_up_no_other(
    letters, cure, redrive, runner, counts, monkeypatch
):
    letters(3)
    from django_taskkit.dlq.preflight import Preflight

    monkeypatch.setattr(Preflight, "verdict", lambda self, letter: 1 / 0)
    made = redrive()
    run(runner(made))

    assert counts(made)[:3] == ("finished", 3, 0)


def test_the_name_in_the_history_tells_redrives_apart_however_long_the_user_s_is(redrive):
    one, two = redrive(by="x" * 500), redrive(by="x" * 500)

    assert name_of(one) != name_of(two)
    assert len(name_of(one)) <= 255


def test_a_time_to_come_is_passed_on_and_one_that_has_passed_is_not(letters, cure, redrive, runner, monkeypatch, clock):
    given = []
    requeued = transitions.requeue

    def spied(*args, not_before=None, **options):
        given.append(not_before)
        return requeued(*args, **options)

    monkeypatch.setattr(transitions, "requeue", spied)
    letters(2)
    then = timezone.now() + timedelta(hours=1)
    running = runner(redrive(not_before=then))
    running.step(1)
    clock.forward(3601)
    running.step(1)

    assert given == [then, None]


def test_a_chunk_takes_as_many_statements_of_its_own_whatever_its_size(letters, cure, redrive, runner, monkeypatch):
    """Those of requeue and of preflight are others' to count."""
    monkeypatch.setattr(transitions, "requeue", lambda *args, **options: transitions.RequeueReport())

    def statements(count):
        letters(count)
        running = runner(redrive(despite_preflight=True))
        with CaptureQueriesContext(connection) as queries:
            running.step()
        DeadLetter.objects.all().delete()
        return len(queries)

    assert statements(100) == statements(10)
