import pytest

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import Lane, by_app, by_priority, by_workload, lanes, retry_lane


def test_by_workload_keeps_what_is_fast_from_what_is_slow():
    made = by_workload(fast=["mail.*"], slow=["reports.*"], cpu=["images.*"], slow_limit=600)

    assert list(made) == ["fast", "slow", "cpu"]
    assert made["fast"] == Lane(tasks=["mail.*"], pool="threads", work="io")
    assert made["slow"] == Lane(tasks=["reports.*"], work="io", prefetch=1, time_limit=600, soft_time_limit=540)
    assert made["cpu"] == Lane(tasks=["images.*"], prefetch=1)


def test_by_priority_has_a_queue_for_each():
    made = by_priority(critical=["billing.*"], low=["stats.*"])

    assert list(made) == ["critical", "high", "low"]
    assert [lane.priority for lane in made.values()] == list(made)
    assert {lane.queue for lane in made.values()} == {""}
    assert made["critical"].tasks == ("billing.*",)
    assert lanes(broker="redis://", **made)["TASKKIT_LANES"]["default"] == {"priority": "default"}


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


@pytest.mark.parametrize("wrong", ["", None, "billing.*", 3, "a b", "billing."])
def test_by_app_takes_names_of_apps_only(wrong):
    with pytest.raises(ConfigurationError, match="makes no sense; give the name of an app"):
        by_app(wrong)


def test_two_apps_of_one_name_are_refused():
    with pytest.raises(ConfigurationError, match="'shop.reports' and 'stock.reports', whose lanes would both be named"):
        by_app("shop.reports", "stock.reports")


def test_a_retry_lane_has_no_tasks_of_its_own():
    assert retry_lane() == {"retry": Lane()}
    assert retry_lane("later", concurrency=2) == {"later": Lane(concurrency=2)}


def test_presets_go_together():
    every = {**by_workload(), **by_priority(), **by_app("billing"), **retry_lane()}

    made = lanes(broker="amqp://", **by_workload(), **by_priority(), **by_app("billing"), **retry_lane())

    assert list(made["TASKKIT_LANES"]) == ["default", *every]


@pytest.mark.parametrize("preset", [by_workload, by_priority])
def test_a_preset_goes_with_a_default_of_the_projects_own(preset):
    made = lanes(broker="redis://", default=Lane(concurrency=2), **preset())

    assert made["TASKKIT_LANES"]["default"]["concurrency"] == 2


@pytest.mark.parametrize("wrong", ["reports.*", None, 5])
@pytest.mark.parametrize("preset", [by_workload, by_priority])
def test_what_is_no_list_of_names_is_refused(preset, wrong):
    option = "slow" if preset is by_workload else "low"

    with pytest.raises(ConfigurationError) as refused:
        preset(**{option: wrong})

    assert f"{option}={wrong!r} makes no sense; give a list" in str(refused.value)


@pytest.mark.parametrize("wrong", ["3600", None, 0, float("inf"), float("nan")])
def test_a_limit_that_is_no_number_of_seconds_is_refused(wrong):
    with pytest.raises(ConfigurationError) as refused:
        by_workload(slow_limit=wrong)

    assert f"by_workload(slow_limit={wrong!r}) makes no sense; give a number of seconds" in str(refused.value)
