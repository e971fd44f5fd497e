import pytest

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import Lane, by_app, by_priority, by_workload, lanes, retry_lane


def test_by_workload_keeps_what_is_fast_from_what_is_slow():
    made = by_workload(fast=["mail.*"], slow=["reports.*"], cpu=["images.*"], slow_limit=600)

    assert list(made) == ["fast", "default", "slow", "cpu"]
    assert made["fast"] == Lane(tasks=["mail.*"], pool="threads", work="io")
    assert made["default"] == Lane()
    assert made["slow"] == Lane(tasks=["reports.*"], work="io", prefetch=1, time_limit=600, soft_time_limit=540)
    assert made["cpu"] == Lane(tasks=["images.*"], prefetch=1)


def test_by_priority_has_a_queue_for_each():
    made = by_priority(critical=["billing.*"], low=["stats.*"])

    assert list(made) == ["critical", "high", "default", "low"]
    assert [lane.priority for lane in made.values()] == list(made)
    assert {lane.queue for lane in made.values()} == {""}
    assert made["critical"].tasks == ("billing.*",)


def test_by_priority_may_share_one_queue():
    made = lanes(broker="redis://", **by_priority(critical=["a"], queue="work"))

    assert list(made["CELERY_TASK_QUEUES"]) == ["work"]
    assert made["CELERY_TASK_ROUTES"] == {
        "a": {"queue": "work", "priority": 0},
        "*": {"queue": "work", "priority": 6},
    }


def test_by_app_names_a_lane_as_the_apps_package():
    made = by_app("billing", "shop.reports", "media.apps.MediaConfig", pool="threads")

    assert made == {
        "billing": Lane(tasks=["billing.*"], pool="threads"),
        "reports": Lane(tasks=["shop.reports.*"], pool="threads"),
        "media": Lane(tasks=["media.*"], pool="threads"),
    }


@pytest.mark.parametrize("wrong", ["", None, "billing.*", 3])
def test_by_app_takes_names_of_apps_only(wrong):
    with pytest.raises(ConfigurationError, match="makes no sense; give the name of an app"):
        by_app(wrong)


def test_two_apps_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="'shop.reports' and 'stock.reports', whose lanes would both be named"):
        by_app("shop.reports", "stock.reports")


def test_a_retry_lane_has_no_tasks_of_its_own():
    assert retry_lane() == {"retry": Lane(role="retry")}
    assert retry_lane("later", concurrency=2) == {"later": Lane(role="retry", concurrency=2)}


def test_presets_go_together():
    made = lanes(broker="amqp://", **by_workload(slow=["reports.*"]), **by_app("billing"), **retry_lane())

    assert list(made["TASKKIT_LANES"]) == ["fast", "default", "slow", "cpu", "billing", "retry"]


@pytest.mark.parametrize("preset", [by_workload, by_priority])
def test_one_name_in_the_place_of_several_is_refused(preset):
    option = "slow" if preset is by_workload else "low"

    with pytest.raises(ConfigurationError, match=rf"{option}='reports.\*' makes no sense; give a list"):
        preset(**{option: "reports.*"})
