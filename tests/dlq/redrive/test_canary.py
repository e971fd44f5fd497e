"""A few at first, and no more when the failure comes back."""

import pytest

from django_taskkit.dlq.redrive import canary, control
from django_taskkit.models import Redrive, RedriveMember

pytestmark = pytest.mark.django_db


@pytest.fixture
def made(redrive):
    return lambda **options: redrive(canary=True, **options)


def settle_in(running, limit=20):
    """Step until nothing is sent any more; return what each step sent."""
    sent = []
    for _ in range(limit):
        step = running.step()
        if step.sent:
            sent.append(step.sent)
        if not step.ours or not (step.sent or step.refused):
            break
    return sent


def end(redrive, failed=0, same=0):
    """Let all that was sent end: so many failed again, of them so many in the same way, and the rest succeeded."""
    members = RedriveMember.objects.filter(redrive=redrive, state="sent").select_related("dead_letter").order_by("pk")
    for number, member in enumerate(members):
        letter = member.dead_letter
        letter.status = "dead" if number < failed else "recovered"
        letter.fingerprint = "f" * 40 if number < same or number >= failed else "e" * 40
        letter.save()


def row():
    return Redrive.objects.get()


def test_it_sends_1_then_5_25_125_625_and_then_the_rest(letters, cure, made, runner):
    letters(1300)
    it = made()
    running = runner(it)

    for count in canary.STEPS:
        assert sum(settle_in(running)) == count
        assert settle_in(running) == [], "it waits for those to end"
        end(it)
    assert sum(settle_in(running)) == 1300 - sum(canary.STEPS)
    assert row().state == "finished"


def test_it_waits_for_the_last_of_a_step(letters, cure, made, runner):
    letters(10)
    it = made()
    running = runner(it)
    settle_in(running)
    end(it)
    assert settle_in(running) == [5]
    late = RedriveMember.objects.filter(state="sent").last().dead_letter
    end(it)
    type(late).objects.filter(pk=late.pk).update(status="requeued")
    assert settle_in(running) == []
    type(late).objects.filter(pk=late.pk).update(status="recovered")

    assert settle_in(running) == [4]
    assert row().state == "finished"


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_one_that_dies_of_the_same_failure_stops_it_up_to_the_step_of_25(letters, cure, made, runner, steps):
    letters(100)
    it = made()
    running = runner(it)
    for _ in range(steps):
        settle_in(running)
        end(it)
    settle_in(running)
    end(it, failed=1, same=1)

    assert settle_in(running) == []

    sent = sum(canary.STEPS[: steps + 1])
    assert (row().state, row().sent, row().held_by) == ("stopped", sent, "")
    assert row().why == (
        f"1 of the {sent} messages that were sent died of the same failure again: "
        f"shop.pay, ValueError (fingerprint {'f' * 12})."
    )


def test_it_stops_before_the_rest_of_the_step_has_ended(letters, cure, made, runner):
    letters(20)
    it = made()
    running = runner(it)
    settle_in(running)
    end(it)
    settle_in(running)
    one = RedriveMember.objects.filter(state="sent").first().dead_letter
    type(one).objects.filter(pk=one.pk).update(status="dead")

    running.step()

    assert (row().state, row().failed_again, canary.running(row())) == ("stopped", 1, 4)


@pytest.mark.parametrize(("same", "state"), [(7, "running"), (8, "stopped")])
def test_afterwards_it_takes_more_than_5_percent(letters, cure, made, runner, same, state):
    letters(200)
    it = made()
    running = runner(it)
    for _ in range(3):
        settle_in(running)
        end(it)
    assert sum(settle_in(running)) == 125
    end(it, failed=same, same=same)
    running.step()

    assert row().state in (state, "finished" if state == "running" else state)


def test_a_different_failure_is_counted_and_stops_nothing(letters, cure, made, runner):
    letters(20)
    it = made()
    running = runner(it)
    settle_in(running)
    end(it)
    settle_in(running)
    end(it, failed=4)

    assert sum(settle_in(running)) == 14
    assert (row().state, row().failed_again, row().same_again) == ("finished", 4, 0)


def test_when_none_of_the_first_six_succeeds_it_stops_whatever_the_failure(letters, cure, made, runner):
    letters(20)
    it = made()
    running = runner(it)
    settle_in(running)
    end(it, failed=1)
    assert settle_in(running) == [5]
    end(it, failed=5)
    settle_in(running)

    assert (row().state, row().why) == ("stopped", "None of the 6 messages that were sent succeeded.")


def test_one_that_has_stopped_goes_on_with_the_next_step_when_it_is_resumed(letters, cure, made, runner):
    letters(100)
    it = made()
    running = runner(it)
    settle_in(running)
    end(it, failed=1, same=1)
    settle_in(running)
    assert row().state == "stopped"

    assert control.resume(it)
    assert settle_in(running) == [5]
    assert row().why == ""
    end(it)
    assert sum(settle_in(running)) == 25
    end(it, failed=1, same=1)
    settle_in(running)
    assert row().state == "stopped"
    assert row().why.startswith("1 of the 31 messages")


def test_it_goes_on_where_it_was_with_another_runner(letters, cure, made, runner, clock):
    letters(100)
    it = made()
    settle_in(runner(it))
    clock.forward(60)
    other = runner(it)
    assert settle_in(other) == []
    end(it)

    assert settle_in(other) == [5]


def test_what_is_refused_is_not_one_of_those_that_are_sent(letters, cure, made, runner):
    letters(3, body_ran=True)
    letters(10)
    it = made()

    assert settle_in(runner(it)) == [1]
    assert row().refused == 3


def test_the_rest_keeps_the_rate(letters, cure, made, runner, clock):
    letters(100)
    running = runner(made(rate=100))
    Redrive.objects.update(step=len(canary.STEPS))
    running.step()
    clock.forward(0.5)

    assert running.step().sent == 50


def test_with_real_tasks_it_stops_when_they_die_again(station, cure, die, made, runner, counts):
    die(10)
    running = runner(made())
    settle_in(running)
    station.run_all()
    settle_in(running)

    assert counts(row()) == ("stopped", 1, 0, 0, 1)
    assert "ValueError" in row().why
    assert station.waiting() == 0


def test_with_real_tasks_that_are_cured_all_recover(station, cure, die, made, runner, counts):
    die(10)
    cure.error = None
    running = runner(made())
    for _ in range(3):
        settle_in(running)
        station.run_all()
    running.outcomes.settle()

    assert counts(row()) == ("finished", 10, 0, 10, 0)
