"""The relay carries on what nobody runs."""

import pytest
from celery import current_app

from django_taskkit.dlq.redrive import control
from django_taskkit.dlq.redrive.carrying import SETTLE, Carried, Carrier
from django_taskkit.dlq.redrive.runner import Runner
from django_taskkit.models import DeadLetter, OutboxMessage, Redrive
from django_taskkit.outbox.relay import Relay

pytestmark = pytest.mark.django_db


@pytest.fixture
def carrier(station, clock):
    return lambda holder="relay", **options: Carrier(station.app, holder, clock=clock, ask=False, **options)


def test_it_sends_a_small_chunk_of_each_per_round(station, letters, cure, redrive, carrier, counts):
    letters(5)
    first = redrive()
    letters(3)
    second = redrive()
    relay = carrier(limit=2)

    assert relay.carry_on() == Carried(sent=4, at_work=True)
    assert relay.carry_on().sent == 3
    while relay.carry_on().at_work:
        pass
    assert [counts(made)[:2] for made in (first, second)] == [("finished", 5), ("finished", 3)]
    assert station.waiting() == 8


def test_it_leaves_alone_what_somebody_runs(letters, cure, redrive, carrier, runner):
    letters(3)
    made = redrive()
    runner(made).step(1)

    assert carrier().carry_on() == Carried()


def test_it_takes_over_when_whoever_ran_it_is_gone(letters, cure, redrive, carrier, runner, clock, counts):
    letters(3)
    made = redrive()
    runner(made).step(1)
    clock.forward(31)

    assert carrier().carry_on().sent == 2
    assert counts(made)[1] == 3


def test_it_sees_what_became_of_what_was_sent(station, cure, die, redrive, carrier, clock, counts):
    die(3)
    cure.error = None
    made = redrive()
    relay = carrier()
    relay.carry_on()
    relay.carry_on()
    station.run_all()
    clock.forward(SETTLE.total_seconds())
    relay.carry_on()

    assert counts(made) == ("finished", 3, 0, 3, 0)


def test_it_keeps_the_rate_over_its_rounds(letters, cure, redrive, carrier, clock):
    letters(20)
    redrive(rate=4)
    relay = carrier()

    sent = []
    for _ in range(4):
        sent.append(relay.carry_on().sent)
        clock.forward(1)
    assert sent == [1, 4, 4, 4]


def test_one_that_can_not_go_on_keeps_no_other_from_its_work(
    letters, cure, redrive, carrier, monkeypatch, counts, caplog
):
    letters(1)
    broken = redrive()
    letters(1)
    sound = redrive()
    step = Runner.step
    monkeypatch.setattr(Runner, "step", lambda self, limit: 1 / 0 if self.pk == broken.pk else step(self, limit))

    assert carrier().carry_on().sent == 1
    assert (counts(broken)[1], counts(sound)[1]) == (0, 1)
    assert f"redrive {broken.pk} could not go on" in caplog.text


def test_it_gives_them_back_when_it_ends(letters, cure, redrive, carrier):
    letters(3)
    redrive(rate=1)
    relay = carrier()
    relay.carry_on()
    assert not carrier("other").carry_on().at_work

    relay.release()

    assert carrier("other").carry_on().at_work


def test_one_that_is_paused_is_left_and_gone_on_with_later(letters, cure, redrive, carrier, clock):
    letters(3)
    made = redrive(rate=1)
    relay = carrier()
    relay.carry_on()
    control.pause(made)
    clock.forward(2)
    assert relay.carry_on() == Carried()
    control.resume(made)

    assert relay.carry_on().sent == 1


def test_a_round_of_the_relay_carries_them_on_and_sends_the_outbox_first(station, letters, cure, redrive, counts):
    letters(3)
    made = redrive(despite_preflight=True)
    cure.task.apply_async((99,), outbox=True)
    relay = Relay(current_app._get_current_object(), name="r1")

    done = relay.run_once()

    assert (done.published, done.redriven, done.redriving, done.errors) == (1, 3, True, ())
    assert not OutboxMessage.objects.exists()
    relay.run_once()
    assert counts(made)[0] == "finished"
    assert DeadLetter.objects.filter(status="requeued").count() == 3
    relay.release()
    assert Redrive.objects.get().held_by == ""
