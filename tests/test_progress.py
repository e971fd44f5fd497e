"""How a task says how far it is, and what is kept of that."""

from __future__ import annotations

import pytest
from django.core.cache import caches

from django_taskkit.base_tasks import DeadLetterTask
from django_taskkit.progress import Progress, Speaker, progress_of, set_progress

pytestmark = pytest.mark.django_db


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def heard():
    return []


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def speaker(heard, clock):
    return Speaker(lambda *said: heard.append(said), clock)


@pytest.fixture(autouse=True)
def empty_cache():
    caches["default"].clear()
    yield
    caches["default"].clear()


def test_a_loop_over_rows_is_written_twice_a_second(speaker, heard, clock):
    for row in range(10_000):
        clock.now = row / 1000
        speaker.say(row, 20_000, "")

    assert 20 <= len(heard) <= 26


def test_the_first_words_are_written_at_once_whatever_the_pace(speaker, heard):
    for stage in ("reading", "sorting", "writing"):
        speaker.say(0, None, stage)

    assert [message for _done, _total, message in heard] == ["reading", "sorting", "writing"]


def test_the_end_is_written_whatever_the_pace_and_once(speaker, heard):
    for row in range(1, 101):
        speaker.say(row, 100, "")
    for _again in range(3):
        speaker.say(100, 100, "")

    assert heard[-1] == (100, 100, "")
    assert len(heard) == 7


def test_a_loop_that_says_something_else_for_each_row_is_written_no_more_often(speaker, heard, clock):
    for row in range(10_000):
        clock.now = row / 1000
        speaker.say(row, 20_000, f"row {row}")

    assert 20 <= len(heard) <= 26


def test_a_stage_that_begins_right_after_a_loop_is_written(speaker, heard):
    for row in range(1, 101):
        speaker.say(row, 100, "adding up")
    speaker.say(0, None, "packing")

    assert heard[-1] == (0, None, "packing")


def test_what_was_said_already_is_not_written_again(speaker, heard):
    speaker.say(1, 2, "")
    speaker.say(1, 2, "")

    assert heard == [(1, 2, "")]


def test_any_task_can_say_how_far_it_is(station):
    @station.app.task(name="shop.counting")
    def counting():
        set_progress(3, 4, "rows")

    sent = counting.delay()
    station.run_next()

    assert progress_of(sent.id) == Progress(done=3, total=4, message="rows")


def test_tasks_of_ours_have_it_as_a_method(station):
    @station.app.task(name="shop.counting", bind=True, base=DeadLetterTask)
    def counting(self):
        self.set_progress(0.5)

    sent = counting.delay()
    station.run_next()

    assert progress_of(sent.id) == Progress(done=0.5, total=None, message="")


def test_outside_of_a_task_it_does_nothing(station):
    @station.app.task(name="shop.counting")
    def counting():
        set_progress(3, 4)
        return "done"

    set_progress(1)

    assert counting() == "done"


def test_of_a_task_that_has_said_nothing_there_is_none(station):
    assert progress_of("nobody") is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("3",), TypeError, "done is '3'; give a number"),
        ((True,), TypeError, "done is True"),
        ((1, "4"), TypeError, "total is '4'"),
        ((-1,), ValueError, "done is -1; give a number, 0 or more"),
        ((float("nan"),), ValueError, "done is nan"),
        ((1, float("inf")), ValueError, "total is inf"),
    ],
)
def test_what_is_no_number_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        set_progress(*arguments)


def test_a_long_message_is_cut(station):
    @station.app.task(name="shop.talking")
    def talking():
        set_progress(0, None, "x" * 1000)

    sent = talking.delay()
    station.run_next()

    assert len(progress_of(sent.id).message) == 200


def test_a_task_goes_on_while_its_progress_can_not_be_written(station, settings):
    settings.CACHES = {
        "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": "redis://127.0.0.1:1/0"}
    }

    @station.app.task(name="shop.counting")
    def counting():
        set_progress(1, 2)

    sent = counting.delay()

    assert not station.run_next().failed
    assert progress_of(sent.id) is None


@pytest.mark.parametrize(
    ("progress", "fraction", "percent"),
    [
        (Progress(done=1, total=4), 0.25, 25),
        (Progress(done=999, total=1000), 0.999, 99),
        (Progress(done=5, total=4), 1.0, 100),
        (Progress(done=1), None, None),
        (Progress(done=0, total=0), None, None),
    ],
)
def test_a_percentage_is_100_only_at_the_end(progress, fraction, percent):
    assert (progress.fraction, progress.percent) == (fraction, percent)
    assert progress.is_determinate is (fraction is not None)


def test_another_message_is_said_soon_also_when_the_last_one_came_to_its_end():
    said, now = [], [0.0]
    speaker = Speaker(lambda *what: said.append(what), clock=lambda: now[0])
    for number in range(1, 1001):
        speaker.say(number, 1000, "reading")
    speaker.say(0, None, "writing the file")  # and says nothing more for five minutes

    assert said[-1] == (0, None, "writing the file")
