import pytest

from django_taskkit.routing import Lane
from django_taskkit.routing.transport_options import options_of, visibility_timeout


@pytest.mark.parametrize(
    ("lane", "seconds"),
    [
        (Lane(), 3600),
        (Lane(time_limit=60), 3600),
        (Lane(time_limit=3600, prefetch=1), 3900),
        (Lane(time_limit=3600), 14700),
        (Lane(time_limit=3600, prefetch=2), 7500),
        (Lane(soft_time_limit=7200, prefetch=1), 7500),
        (Lane(time_limit=3600.2, prefetch=1), 3901),
    ],
)
def test_a_message_stays_with_its_worker_for_as_long_as_those_before_it_may_run(lane, seconds):
    assert visibility_timeout({"default": Lane(), "slow": lane}) == seconds


def test_rabbitmq_whose_confirms_the_app_sees_to_and_plain_brokers_are_told_nothing():
    assert options_of("rabbitmq", {}) == {}
    assert options_of("plain", {"slow": Lane(time_limit=10**6)}) == {}
