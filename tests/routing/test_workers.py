"""The plan of each lane's worker: queues, size, limits, and what it warns of."""

import subprocess
import sys

import pytest
from celery import Celery

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import lanes
from django_taskkit.routing.lane import POOLS, Lane
from django_taskkit.routing.workers import plain_name, usable_cores, worker_plans


@pytest.fixture
def app():
    """A project's app, current nowhere, which sends nothing."""
    app = Celery("shop", broker="memory://", set_as_current=False, fixups=[])
    yield app
    app.close()


@pytest.fixture
def plan(app):
    """The plan of one lane, on a machine with four cores."""

    def plan(**options):
        (plan,) = worker_plans(app, lanes={"mail": Lane(**options)}, cores=4)
        return plan

    return plan


# --- which workers there are -------------------------------------------------------------------------------


def test_each_lane_has_a_worker_that_reads_its_queue_alone(app):
    plans = worker_plans(app, lanes={"default": Lane(), "reports": Lane(queue="shop.reports")}, cores=1)

    assert [(plan.name, plan.lanes, plan.queues) for plan in plans] == [
        ("default", ("default",), ("default",)),
        ("reports", ("reports",), ("shop.reports",)),
    ]


def test_the_lanes_are_those_of_the_settings(app, settings):
    settings.TASKKIT_LANES = {"default": {}, "media": {"concurrency": 3}}

    assert [(plan.name, plan.concurrency) for plan in worker_plans(app, cores=2)] == [("default", 2), ("media", 3)]


def test_lanes_that_share_a_queue_share_a_worker(app):
    sharing = {"high": Lane(queue="all", priority="high"), "default": Lane(queue="all", priority="default")}

    (plan,) = worker_plans(app, lanes=sharing, cores=1)

    assert (plan.name, plan.lanes, plan.queues) == ("all", ("high", "default"), ("all",))
    assert not [warning for warning in plan.warnings if "shares" in warning]


def test_of_lanes_that_share_a_queue_and_want_different_workers_the_first_decides_and_that_is_said(app):
    sharing = {"a": Lane(queue="all", concurrency=2), "b": Lane(queue="all", concurrency=9)}

    (plan,) = worker_plans(app, lanes=sharing, cores=1)

    assert plan.concurrency == 2
    assert "the lane b shares the queue all with a, and runs as that one says" in plan.warnings


@pytest.mark.parametrize("names", [("a b", "a/b"), ("mail_out", "mail-out"), ("Mail", "mail")])
def test_two_lanes_whose_workers_would_have_one_name_are_refused(app, names):
    with pytest.raises(ConfigurationError, match=r"would both have a worker named .*; rename one"):
        worker_plans(app, lanes={name: Lane() for name in names}, cores=1)


@pytest.mark.parametrize("queue", ["a,b", " a", "a\nb"])
def test_a_queue_that_a_command_line_cant_name_is_refused(app, queue):
    with pytest.raises(ConfigurationError, match="can't be named on a command line"):
        worker_plans(app, lanes={"a": Lane(queue=queue)}, cores=1)


def test_projects_that_share_a_broker_have_workers_of_different_node_names(app, settings):
    """RabbitMQ lets only one worker of a node name in."""
    found = []
    for prefix in ("shop.", "crm."):
        settings.TASKKIT_LANES = lanes(broker="amqp://", prefix=prefix)["TASKKIT_LANES"]
        (plan,) = worker_plans(app, cores=1)
        found.append((plan.name, plan.argv("config")[5]))

    assert found == [("default", "--hostname=shop-default@%h"), ("default", "--hostname=crm-default@%h")]


def test_without_lanes_the_node_is_named_after_the_first_queue(app):
    app.conf.task_queues = {"b": {}, "a": {}}

    (plan,) = worker_plans(app, lanes={}, cores=1)

    assert "--hostname=a@%h" in plan.argv("shop")


def test_two_queues_whose_workers_would_have_one_node_name_are_refused(app):
    with pytest.raises(
        ConfigurationError, match="'a.b' and 'a-b' would both have a worker with the node name 'a-b@%h'"
    ):
        worker_plans(app, lanes={"one": Lane(queue="a.b"), "two": Lane(queue="a-b")}, cores=1)


@pytest.mark.parametrize(
    ("name", "plain"), [("mail", "mail"), ("a b/c", "a-b-c"), ("-x-", "x"), ("é", "worker"), ("$(rm)", "rm")]
)
def test_a_name_has_nothing_that_a_shell_or_systemd_reads_as_more(name, plain):
    assert plain_name(name) == plain


def test_without_lanes_one_worker_reads_the_default_queue(app):
    app.conf.task_default_queue = "all"

    (plan,) = worker_plans(app, lanes={}, cores=3)

    assert (plan.name, plan.lanes, plan.queues, plan.pool, plan.concurrency) == ("worker", (), ("all",), "prefork", 3)


def test_without_lanes_it_reads_all_declared_queues_as_the_settings_say(app):
    app.conf.update(
        task_queues={"b": {"exchange": "b"}, "a": {"exchange": "a"}}, worker_pool="threads", worker_concurrency=7
    )

    (plan,) = worker_plans(app, lanes={}, cores=3)

    assert (plan.queues, plan.pool, plan.concurrency) == (("a", "b"), "threads", 7)


def test_a_pool_of_the_projects_own_is_left_to_its_settings(app):
    app.conf.worker_pool = "shop.pools:TaskPool"

    (plan,) = worker_plans(app, lanes={}, cores=3)

    assert plan.pool == "shop.pools:TaskPool"
    assert not [argument for argument in plan.argv("shop") if argument.startswith("--pool")]


# --- how many tasks at once --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "concurrency", "why"),
    [
        ({}, 4, "a process for each of 4 cores"),
        ({"work": "io"}, 8, "2 processes for each of 4 cores"),
        ({"pool": "threads"}, 20, "5 threads for each of 4 cores"),
        ({"pool": "gevent"}, 100, "100 to 1000"),
        ({"pool": "eventlet"}, 100, "100 to 1000"),
        ({"pool": "solo"}, 1, "one task at a time"),
        ({"pool": "gevent", "concurrency": 7}, 7, "as the settings say"),
    ],
)
def test_the_size_follows_from_pool_work_and_cores_and_says_why(plan, options, concurrency, why):
    found = plan(**options)

    assert found.concurrency == concurrency
    assert found.why[0].startswith(f"concurrency {concurrency}: ")
    assert why in found.why[0]


def test_the_cores_are_those_that_this_process_may_use(plan, app):
    (found,) = worker_plans(app, lanes={"a": Lane()})

    assert found.concurrency == usable_cores() >= 1


def test_no_cores_are_refused(app):
    with pytest.raises(ConfigurationError, match="cores is 0; give the number of cores"):
        worker_plans(app, cores=0)


def test_solo_runs_one_task_and_says_that_it_was_asked_for_more(plan):
    found = plan(pool="solo", concurrency=4)

    assert found.concurrency == 1
    assert any("concurrency=4 does nothing" in warning for warning in found.warnings)


# --- limits ------------------------------------------------------------------------------------------------


def test_limits_are_given_as_settings_as_the_options_do_nothing_beside_those_of_the_project(app, plan):
    app.conf.update(task_time_limit=60, task_soft_time_limit=45)

    argv = plan(time_limit=600, soft_time_limit=500.5).argv("shop")

    assert argv[-2:] == ("task.time_limit=600", "task.soft_time_limit=500.5")


def test_without_limits_of_its_own_a_lane_has_those_of_the_project(app, plan):
    app.conf.update(task_time_limit=60, task_soft_time_limit=45)

    found = plan()

    assert (found.time_limit, found.soft_time_limit) == (None, None)
    assert found.warnings == ()


def test_with_a_hard_limit_of_its_own_the_soft_one_of_the_project_does_not_end_its_tasks_sooner(app, plan):
    app.conf.update(task_time_limit=60, task_soft_time_limit=45)

    assert plan(time_limit=600).soft_time_limit == 540
    assert plan(time_limit=30).soft_time_limit == 27


def test_where_the_project_has_no_soft_limit_a_lane_gets_none(plan):
    assert plan(time_limit=600).soft_time_limit is None


def test_a_soft_limit_that_is_not_below_the_projects_hard_one_is_warned_of(app, plan):
    app.conf.task_time_limit = 60

    (warning,) = plan(soft_time_limit=90).warnings

    assert "the soft time limit of 90 s is not below the hard one of 60 s" in warning


@pytest.mark.parametrize("pool", sorted(set(POOLS) - {"prefork", "gevent"}))
def test_a_pool_without_time_limits_gets_none_and_says_so(plan, pool):
    found = plan(pool=pool, time_limit=60, soft_time_limit=50)

    assert (found.time_limit, found.soft_time_limit) == (None, None)
    assert [warning for warning in found.warnings if f"the pool {pool} ignores time limits (here 60 s)" in warning]


def test_gevent_has_the_hard_limit_and_not_the_soft_one(plan):
    found = plan(pool="gevent", time_limit=60, soft_time_limit=50)

    assert (found.time_limit, found.soft_time_limit) == (60, None)
    assert found.warnings == ("the pool gevent ignores the soft time limit of 50 s; only prefork has it",)


@pytest.mark.parametrize("pool", sorted(set(POOLS) - {"prefork"}))
def test_only_prefork_has_processes_to_replace(plan, pool):
    found = plan(pool=pool, max_tasks_per_child=100)

    assert found.max_tasks_per_child is None
    assert any("max_tasks_per_child does nothing" in warning for warning in found.warnings)


# --- the command line --------------------------------------------------------------------------------------


def test_the_command_line_says_all_that_the_lane_says(plan):
    argv = plan(queue="out", concurrency=2, prefetch=3, max_tasks_per_child=50, time_limit=60).argv("shop")

    assert argv == (
        *("-m", "celery", "-A", "shop", "worker", "--hostname=out@%h", "--loglevel=INFO", "--queues=out"),
        *("--pool=prefork", "--concurrency=2", "--prefetch-multiplier=3", "--max-tasks-per-child=50"),
        "task.time_limit=60",
    )


def test_celerys_own_command_line_takes_every_option(plan):
    """Parsed by the Celery that is installed here, in another process: its options come and go."""
    argv = plan(concurrency=2, prefetch=3, max_tasks_per_child=50, time_limit=60.5, soft_time_limit=50).argv("shop")
    code = (
        "import sys\n"
        "from celery import Celery\n"
        "from celery.bin.worker import worker\n"
        "from celery.bin.base import CLIContext\n"
        "app = Celery('shop', broker='memory://')\n"
        "context = worker.make_context('worker', sys.argv[1:], obj=CLIContext(app, no_color=True, workdir=None))\n"
        "app.config_from_cmdline(context.args, namespace='worker')\n"
        "print(context.params['concurrency'], context.params['prefetch_multiplier'], context.params['queues'],\n"
        "      context.params['max_tasks_per_child'], app.conf.task_time_limit, app.conf.task_soft_time_limit)"
    )

    done = subprocess.run([sys.executable, "-c", code, *argv[5:]], capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["2", "3", "['mail']", "50", "60.5", "50.0"], done.stderr
