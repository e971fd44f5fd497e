import pytest

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import Lane
from django_taskkit.routing.lane import declared_lanes


def test_a_lane_describes_what_it_was_told_and_can_be_made_of_it_again():
    lane = Lane(tasks={"reports.*"}, prefetch=1, time_limit=3600)

    assert lane.described() == {"tasks": ["reports.*"], "prefetch": 1, "time_limit": 3600}
    assert Lane(**lane.described()) == lane
    assert Lane().described() == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tasks": "reports.*"}, "Lane(tasks='reports.*') makes no sense; give a list of names"),
        ({"tasks": [""]}, "Lane(tasks=...) has '' in it"),
        ({"priority": "urgent"}, "give one of 'critical', 'high', 'default', 'low'"),
        ({"priority": 0}, "Lane(priority=0) makes no sense"),
        ({"pool": "processes"}, "Lane(pool='processes') makes no sense"),
        ({"work": "both"}, "give one of 'cpu', 'io'"),
        ({"queue": 3}, "Lane(queue=3) makes no sense; give the queue's name"),
        ({"concurrency": 0}, "Lane(concurrency=0) makes no sense; give a whole number above 0"),
        ({"prefetch": True}, "Lane(prefetch=True) makes no sense"),
        ({"time_limit": "60"}, "give a number of seconds above 0"),
        ({"time_limit": float("inf")}, "Lane(time_limit=inf) makes no sense; give a number of seconds above 0"),
        ({"soft_time_limit": float("nan")}, "Lane(soft_time_limit=nan) makes no sense"),
        ({"tasks": [" reports.*"]}, "Lane(tasks=...) has ' reports.*' in it"),
        ({"time_limit": 60, "soft_time_limit": 60}, "is not below time_limit=60"),
    ],
)
def test_an_option_that_makes_no_sense_is_named_with_its_value(options, sentence):
    with pytest.raises(ConfigurationError) as refused:
        Lane(**options)

    assert sentence in str(refused.value)


def test_the_settings_declare_lanes_by_name(settings):
    settings.TASKKIT_LANES = {"default": {}, "slow": {"tasks": ["slow.*"], "prefetch": 1}}

    assert declared_lanes() == {"default": Lane(), "slow": Lane(tasks=["slow.*"], prefetch=1)}


def test_without_a_setting_there_are_none():
    assert declared_lanes() == {}


@pytest.mark.parametrize("wrong", [["slow"], {"slow": {"queues": ["x"]}}, {"slow": 3}])
def test_settings_that_lanes_did_not_make_are_refused(settings, wrong):
    settings.TASKKIT_LANES = wrong

    with pytest.raises(ConfigurationError, match=r"let django_taskkit.routing.lanes\(\) make it"):
        declared_lanes()
