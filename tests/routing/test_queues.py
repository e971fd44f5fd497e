import pytest

from django_taskkit.routing import Lane
from django_taskkit.routing.queues import by_queue, routing_key


@pytest.mark.parametrize(
    ("queue", "key"), [("slow", "slow"), ("shop.slow", "shop-slow"), ("a_b-c", "a_b-c"), ("odd.*.#", "odd----")]
)
def test_a_routing_key_is_one_word_that_no_binding_takes_for_a_pattern(queue, key):
    assert routing_key(queue) == key


def test_a_routing_key_is_no_end_of_another():
    """Celery binds ``#.<key>``, which takes whatever ends so."""
    assert "." not in routing_key("a.b.c")


def test_lanes_are_found_by_the_queue_that_they_share():
    assert by_queue({"one": Lane(queue="q"), "q": Lane(), "two": Lane()}) == {"q": ["one", "q"], "two": ["two"]}
