import pytest

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import Lane
from django_taskkit.routing.rules import rules


def made(**lanes):
    return rules({"default": Lane(), **lanes}, {"critical": 0, "default": 6})


def test_rules_stand_in_the_order_of_the_lanes():
    assert list(made(one=Lane(tasks=["b.*", "a.*"]), two=Lane(tasks=["*.last"]))) == ["b.*", "a.*", "*.last"]


def test_no_task_can_be_in_two_lanes():
    with pytest.raises(ConfigurationError, match=r"the lanes 'one' and 'two' both have 'a.\*'"):
        made(one=Lane(tasks=["a.*"]), two=Lane(tasks=["a.*"]))


@pytest.mark.parametrize(("first", "hidden"), [("a.*", "a.b.*"), ("*", "a.*"), ("*.tasks.*", "shop.tasks.s*")])
def test_a_pattern_that_is_never_reached_is_refused(first, hidden):
    with pytest.raises(ConfigurationError, match=r"is never reached: .* of the lane 'one' comes first.*before 'one'"):
        made(one=Lane(tasks=[first]), two=Lane(tasks=[hidden]))

    made(two=Lane(tasks=[hidden]), one=Lane(tasks=[first]))


def test_patterns_may_overlap_in_part_and_whole_names_may_stand_anywhere():
    made(one=Lane(tasks=["a.*"]), two=Lane(tasks=["*.b", "a.c"]))


def test_the_rest_has_a_rule_only_where_it_has_a_priority():
    assert rules({"default": Lane(priority="default")}, {"default": 6}) == {"*": {"queue": "default", "priority": 6}}
    assert rules({"default": Lane(priority="default")}, {}) == {}


def test_a_lane_may_take_the_rest_itself():
    found = rules({"default": Lane(priority="default"), "all": Lane(tasks=["*"])}, {"default": 6})

    assert found == {"*": {"queue": "all"}}
