"""No more than so many per second, whatever the clock does."""

import pytest

from django_taskkit.dlq.redrive.pace import BURST, Pace


def sent_in(clock, pace, seconds, every, limit=500):
    total = 0
    for _ in range(round(seconds / every)):
        allowed = pace.allowance(limit)
        pace.spend(allowed)
        total += allowed
        clock.forward(every)
    return total


@pytest.mark.parametrize("every", [0.01, 0.25, 1])
@pytest.mark.parametrize("rate", [0.5, 3, 20, 400])
def test_on_average_it_keeps_the_rate(clock, rate, every):
    sent = sent_in(clock, Pace(rate, clock), 60, every)

    assert 60 * rate - max(1, rate) <= sent <= 60 * rate + 1


def test_without_a_rate_it_allows_what_is_asked_for(clock):
    assert Pace(None, clock).allowance(500) == 500


def test_a_pause_saves_nothing_up(clock):
    pace = Pace(10, clock)
    clock.forward(3600)

    assert pace.allowance(500) == 10 * BURST


def test_a_clock_that_is_set_back_stops_nothing(clock):
    pace = Pace(10, clock)
    pace.spend(pace.allowance(500))
    clock.forward(-3600)
    assert pace.allowance(500) == 0
    clock.forward(1)

    assert pace.allowance(500) == 10


def test_it_says_when_the_next_one_may_be_sent(clock):
    pace = Pace(0.5, clock)
    pace.spend(pace.allowance(500))

    assert pace.wait() == 2
