"""How long a stop may take: as long as the longest task that the worker may be in the midst of."""

import pytest
from celery import Celery

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.routing.lane import Lane
from django_taskkit.routing.stopping import STOP_GRACE_WITHOUT_LIMIT, STOP_MARGIN
from django_taskkit.routing.workers import worker_plans


@pytest.fixture
def app():
    app = Celery("shop", broker="memory://", set_as_current=False, fixups=[])
    app.conf.task_default_queue = "default"
    app.conf.task_time_limit = 60
    yield app
    app.close()


def work():
    """What a task does; here nothing runs it."""


def grace(app, **lanes):
    return {plan.name: plan.stop_grace for plan in worker_plans(app, lanes=lanes or {"default": Lane()}, cores=1)}


def test_it_is_the_hard_limit_and_a_margin(app):
    assert grace(app) == {"default": 60 + STOP_MARGIN}


def test_the_lanes_own_limit_counts_for_it_alone(app):
    assert grace(app, default=Lane(), slow=Lane(time_limit=600)) == {"default": 75, "slow": 600 + STOP_MARGIN}


def test_a_soft_shutdown_may_come_on_top(app):
    app.conf.worker_soft_shutdown_timeout = 10

    assert grace(app) == {"default": 85}


def test_half_seconds_are_rounded_up(app):
    assert grace(app, quick=Lane(time_limit=0.5)) == {"quick": 1 + STOP_MARGIN}


def test_a_task_with_a_longer_limit_of_its_own_makes_the_stop_of_its_lane_longer(app):
    app.conf.task_routes = {"export": {"queue": "slow"}}
    app.task(shared=False, name="export", time_limit=330)(work)
    app.task(shared=False, name="short", time_limit=5)(work)

    (default, slow) = worker_plans(app, lanes={"default": Lane(), "slow": Lane()}, cores=1)

    assert (default.stop_grace, slow.stop_grace) == (75, 345)
    assert slow.why[1] == "a stop may take 330 s (the time limit of export) and 15 s for the end of the worker"


@pytest.mark.filterwarnings("ignore:(?s).*The 'queue' task attribute is deprecated")
def test_the_queue_on_the_task_itself_counts_as_well(app):
    app.task(shared=False, name="export", time_limit=330, queue="slow")(work)

    assert grace(app, default=Lane(), slow=Lane()) == {"default": 75, "slow": 345}


def test_a_router_that_fails_costs_nothing_but_the_tasks_own_limit(app):
    def router(*_args, **_kwargs):
        raise LookupError("no tenant")

    app.conf.task_routes = [router]
    app.task(shared=False, name="export", time_limit=330)(work)

    assert grace(app) == {"default": 75}


def test_without_any_limit_it_is_five_minutes_and_a_warning(app):
    app.conf.task_time_limit = None

    (plan,) = worker_plans(app, lanes={"default": Lane()}, cores=1)

    assert plan.stop_grace == STOP_GRACE_WITHOUT_LIMIT == 300
    assert "set task_time_limit, or time_limit of the lane" in plan.warnings[0]


def test_without_a_limit_for_all_the_limit_of_one_task_makes_it_longer_never_shorter(app):
    app.conf.task_time_limit = None
    app.task(shared=False, name="a", time_limit=900)(work)
    app.task(shared=False, name="b", time_limit=5)(work)

    assert grace(app) == {"default": 900 + STOP_MARGIN}


@pytest.mark.parametrize("pool", ["threads", "gevent", "solo"])
def test_pools_that_go_on_with_what_they_took_ahead_get_the_time_for_it(app, pool):
    (plan,) = worker_plans(app, lanes={"default": Lane(pool=pool, prefetch=2)}, cores=1)

    assert plan.stop_grace == 3 * 60 + STOP_MARGIN
    assert f"60 s (the hard time limit) 3 times, as the pool {pool} may go on" in plan.why[1]
    assert grace(app, default=Lane(pool=pool)) == {"default": (1 + 4) * 60 + STOP_MARGIN}


def test_a_prefetch_without_a_limit_counts_as_celerys_default(app):
    app.conf.worker_prefetch_multiplier = 0

    assert grace(app, default=Lane(pool="threads")) == {"default": (1 + 4) * 60 + STOP_MARGIN}


def test_a_task_may_run_in_the_lane_where_it_retries_as_well(app):
    app.task(shared=False, name="export", base=BaseTaskWithRetry, retry_queue="retry", time_limit=330)(work)

    assert grace(app, default=Lane(), retry=Lane(), other=Lane()) == {"default": 345, "retry": 345, "other": 75}


def test_a_soft_limit_alone_may_be_longer_than_five_minutes(app):
    app.conf.task_time_limit = None

    (plan,) = worker_plans(app, lanes={"slow": Lane(soft_time_limit=7200)}, cores=1)

    assert plan.stop_grace == 7200 + STOP_MARGIN
    assert "nothing but a soft limit, which a task may catch, ends a task that hangs" in plan.warnings[0]


def test_a_soft_limit_above_the_hard_one_switches_that_one_off(app):
    (plan,) = worker_plans(app, lanes={"slow": Lane(soft_time_limit=7200)}, cores=1)

    assert plan.stop_grace == 7200 + STOP_MARGIN
    assert plan.why[1].startswith("a stop may take 7200 s (the soft time limit) and")


def test_a_soft_limit_of_a_task_counts_as_its_lanes_does(app):
    app.task(shared=False, name="export", soft_time_limit=330)(work)

    assert grace(app) == {"default": 330 + STOP_MARGIN}


def test_soft_limits_count_on_prefork_alone_as_the_other_pools_ignore_them(app):
    app.task(shared=False, name="export", soft_time_limit=330)(work)

    assert grace(app, default=Lane(pool="gevent", prefetch=1, soft_time_limit=300)) == {"default": 2 * 60 + STOP_MARGIN}
