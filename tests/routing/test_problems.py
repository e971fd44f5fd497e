"""What is wrong with where tasks go, as check and `taskkit routes` tell it."""

import pytest

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.routing import Lane, by_priority
from django_taskkit.routing.problems import problems


@pytest.fixture
def ids(station):
    return lambda: [problem.id for problem in problems(station.app)]


def test_a_project_as_celery_makes_it_has_none(station, task, ids):
    task("a")
    station.app.conf.task_routes = {"a": "anywhere"}
    station.app.conf.beat_schedule = {"daily": {"task": "a", "schedule": 60, "options": {"queue": "anywhere"}}}

    assert ids() == []


@pytest.mark.parametrize("broker", ["redis://", "amqp://", "memory://"])
def test_what_lanes_made_has_none(lay, task, ids, settings, broker):
    settings.TASKKIT = {"INTAKE_QUEUES": ["taskkit.dead"]}
    lay(broker=broker, **by_priority(low=["low.*"]))
    task("low.work")
    task("other")

    assert ids() == []


def test_a_task_whose_queue_is_missing_can_not_be_sent(lay, station, task):
    lay(but={"task_routes": {"a": "nowhere"}})
    task("a")

    [problem] = problems(station.app)

    assert (problem.id, problem.task) == ("taskkit.E030", "a")
    assert problem.text == "The task a can't be sent, by task_routes['a']: Queue 'nowhere' missing from task_queues."
    assert problem.hint == "Correct the rule, or add a lane with that queue."


def test_a_queue_that_no_lane_has_is_read_by_nobody(lay, station, task):
    lay(but={"task_queues": {"default": {}, "extra": {}}, "task_routes": {"a": "extra"}})
    task("a")

    [problem] = problems(station.app)

    assert (problem.id, problem.task, problem.queue) == ("taskkit.W060", "a", "extra")
    assert problem.text == (
        "The task a goes, by task_routes['a'], to the queue 'extra', which no lane has: no lane's worker reads it."
    )


def test_without_lanes_it_is_the_declared_queues_that_count(station, task):
    station.app.conf.task_queues = {station.queue: {}}
    station.app.conf.task_routes = {"a": "extra"}
    task("a")

    [problem] = problems(station.app)

    assert (problem.id, problem.queue) == ("taskkit.W060", "extra")
    assert "only a worker reads it that is started with -Q" in problem.hint


def test_a_router_that_fails_is_told(station, task):
    def broken(name, args, kwargs, options, task=None, **kw):
        raise LookupError("no tenant")

    station.app.conf.task_routes = broken
    task("a")

    [problem] = problems(station.app)

    assert problem.id == "taskkit.W061"
    assert "LookupError: no tenant" in problem.text


def test_retries_may_go_nowhere(lay, station, task):
    lay()
    task("a", base=BaseTaskWithRetry, retry_queue="retry")

    [problem] = problems(station.app)

    assert (problem.id, problem.task, problem.queue) == ("taskkit.E030", "a", "retry")
    assert problem.text.startswith("Retries of the task a go, by its retry_queue, to the queue 'retry'")


def test_a_schedule_may_name_a_queue_of_its_own(lay, station):
    lay(slow=Lane())
    station.app.conf.beat_schedule = {
        "good": {"task": "a", "schedule": 60, "options": {"queue": "slow"}},
        "none": {"task": "a", "schedule": 60},
        "bad": {"task": "a", "schedule": 60, "options": {"queue": "slwo"}},
    }

    [problem] = problems(station.app)

    assert (problem.id, problem.queue) == ("taskkit.E030", "slwo")
    assert "The entry 'bad' of beat_schedule" in problem.text


def test_a_default_queue_that_no_lane_has_is_told_once(lay, station, task, settings, ids):
    lay()
    station.app.conf.task_default_queue = "celery"
    for name in ("a", "b"):
        task(name)

    assert ids() == ["taskkit.E030"] * 3, "the queue itself, and the two tasks that can't be sent"


def test_lanes_that_celery_did_not_get_are_told(station, settings):
    settings.TASKKIT_LANES = {"default": {"queue": station.queue}, "slow": {}}

    [problem] = problems(station.app)

    assert problem.id == "taskkit.E032"
    assert problem.text == "The queue 'slow' of the lane 'slow' is not in Celery's task_queues."
    assert "namespace" in problem.hint


def test_lanes_that_are_broken_are_told(station, settings):
    settings.TASKKIT_LANES = {"slow": {"tasks": "slow.*"}}

    [problem] = problems(station.app)

    assert problem.id == "taskkit.E031"
    assert "Lane(tasks='slow.*') makes no sense" in problem.text


def test_a_default_priority_undoes_those_of_the_lanes(lay, station, ids):
    lay(**by_priority())
    station.app.conf.task_default_priority = 0

    assert ids() == ["taskkit.W062"]


def test_lanes_without_priorities_may_have_a_default_one(lay, station, ids):
    lay()
    station.app.conf.task_default_priority = 5

    assert ids() == []


@pytest.mark.filterwarnings("ignore:(?s).*The 'priority' task attribute is deprecated")
class TestAPriorityOfATask:
    def test_undoes_that_of_its_lane(self, lay, station, task):
        lay(urgent=Lane(priority="critical", tasks=["a"]))
        task("a", priority=0)

        [problem] = problems(station.app)

        assert (problem.id, problem.task) == ("taskkit.W062", "a")
        assert problem.text.startswith("The task a has priority=0 of its own, which wins over")

    def test_is_the_projects_choice_where_no_lane_has_one(self, lay, task, ids):
        lay()
        task("a", priority=9)

        assert ids() == []

    def test_is_none_if_it_is_that_of_the_settings(self, lay, station, task, ids):
        lay(**by_priority())
        station.app.conf.task_default_priority = 5
        task("a")

        assert ids() == ["taskkit.W062"], "once, for the setting"


class TestDeadMessages:
    def test_that_nobody_takes_in_are_told(self, lay, station):
        lay(broker="amqp://", prefix="shop.")

        [problem] = problems(station.app)

        assert (problem.id, problem.queue) == ("taskkit.W063", "shop.taskkit.dead")
        assert 'TASKKIT = {"INTAKE_QUEUES": ["shop.taskkit.dead"]}' in problem.hint

    def test_that_are_dropped_are_the_projects_choice(self, lay, ids):
        lay(broker="amqp://", dead_letter_queue=None)

        assert ids() == []

    def test_are_not_looked_at_while_the_settings_are_broken(self, lay, ids, settings):
        settings.TASKKIT = {"NONSENSE": 1}
        lay(broker="amqp://")

        assert ids() == []
