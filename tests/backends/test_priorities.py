"""Django's -100 to 100 in the numbers of each broker, the right way round."""

import itertools

import pytest

pytest.importorskip("django_taskkit.backends.interface", exc_type=ImportError)

from django_taskkit.backends.priorities import has_priorities, number_for


@pytest.fixture
def number(station, task):
    nothing = task()

    def number(priority, broker="redis://", queue=None, **settings):
        station.app.conf.update(broker_url=broker, **settings)
        return number_for(station.app, nothing, priority, queue)

    return number


@pytest.mark.parametrize(("priority", "expected"), [(-100, 9), (-1, 9), (0, 6), (1, 3), (50, 3), (51, 0), (100, 0)])
def test_on_redis_the_smallest_number_is_the_most_urgent(number, priority, expected):
    assert number(priority) == expected


@pytest.mark.parametrize(
    ("priority", "expected"), [(-100, 0), (-34, 1), (-1, 2), (0, 3), (1, 4), (17, 5), (50, 6), (100, 9)]
)
def test_on_rabbitmq_the_largest_one_is(number, priority, expected):
    assert number(priority, "amqp://") == expected


@pytest.mark.parametrize(("broker", "sign"), [("redis://", -1), ("amqp://", 1), ("filesystem://", 1)])
def test_more_urgent_is_never_behind(number, broker, sign):
    numbers = [number(priority, broker) * sign for priority in range(-100, 101)]

    assert all(before <= after for before, after in itertools.pairwise(numbers))
    assert numbers[99] < numbers[100] < numbers[101]


def test_redis_has_the_lists_that_the_settings_name(number):
    options = {"broker_transport_options": {"priority_steps": list(range(10))}}

    assert [number(priority, **options) for priority in (-100, -1, 0, 1, 100)] == [9, 7, 6, 5, 0]


@pytest.mark.parametrize("by", ["task_default_priority", "route"])
def test_the_default_is_what_the_settings_say_if_they_say_something(number, by):
    settings = {"task_default_priority": 3}
    if by == "route":
        settings = {"task_routes": {"orders.*": {"queue": "orders", "priority": 3}}}

    assert number(0, **settings) is None
    assert number(100) == 0


def test_sqs_has_none(number, station):
    assert number(100, "sqs://") is None
    assert not has_priorities(station.app)


def test_a_broker_that_nobody_knows_may_have_some(number, station):
    assert number(100, "gcpubsub://") == 9
    assert has_priorities(station.app)
