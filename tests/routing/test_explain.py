"""Where a task goes, and by which rule, as Celery's own router says."""

import re

import pytest
from celery.exceptions import QueueNotFound
from kombu import Exchange, Queue

from django_taskkit.exceptions import ConfigurationError
from django_taskkit.routing import Lane, by_priority
from django_taskkit.routing.explain import explain, known_queues, own_tasks


def by_tenant(name, args, kwargs, options, task=None, **kw):
    return {"queue": "tenants"} if name.startswith("tenants.") else None


class OldRouter:
    def route_for_task(self, task, args=None, kwargs=None):
        return "old" if task == "old.work" else None


def of_first_argument(name, args, kwargs, options, task=None, **kw):
    return {"queue": args[0]}


@pytest.fixture
def route(station):
    def route(name):
        [found] = explain(station.app, [name])
        return found

    return route


def test_a_lane_takes_what_its_pattern_fits(lay, route):
    lay(reports=Lane(tasks=["reports.*"]))

    found = route("reports.monthly")

    assert (found.rule, found.queue, found.lanes) == ("task_routes['reports.*']", "reports", ("reports",))
    assert (found.exchange, found.routing_key, found.priority) == ("", "reports", None)
    assert not found.registered
    assert not found.error


def test_what_no_rule_fits_goes_to_the_default(lay, route):
    lay(reports=Lane(tasks=["reports.*"]))

    assert (route("other").rule, route("other").queue) == ("task_default_queue", "default")


def test_on_quorum_queues_the_exchange_and_the_key_are_those_of_the_queue(lay, route):
    lay(broker="amqp://", prefix="shop.", reports=Lane(tasks=["reports.*"]))

    found = route("reports.monthly")

    assert (found.exchange, found.exchange_type, found.routing_key) == ("shop.taskkit.lanes", "topic", "shop-reports")


@pytest.mark.parametrize(("broker", "number"), [("redis://", 9), ("amqp://", 0), ("memory://", 0)])
def test_a_priority_has_its_name(lay, route, broker, number):
    lay(broker=broker, **by_priority(low=["low.*"]))

    assert (route("low.work").priority, route("low.work").priority_name) == (number, "low")
    assert (route("other").priority_name, route("other").rule) == ("default", "task_routes['*']")


def test_a_number_between_the_names_has_none(lay, route, station, task):
    lay(broker="redis://", **by_priority(low=["low.*"]))
    task("low.work", priority=5)

    assert (route("low.work").priority, route("low.work").priority_name) == (5, "")
    assert route("low.work").rule == "task_routes['low.*'], the task's own priority=5"


def test_what_the_task_says_itself_wins(lay, route, task):
    lay(reports=Lane(tasks=["reports.*"]), fast=Lane())
    task("reports.quick", queue="fast")

    found = route("reports.quick")

    assert (found.rule, found.queue, found.registered) == ("the task's own queue='fast'", "fast", True)


class TestRulesOfAProjectWithoutLanes:
    @pytest.mark.parametrize(
        ("routes", "rule"),
        [
            ({"a.b": "q"}, "task_routes['a.b']"),
            ({"a.*": {"queue": "q"}}, "task_routes['a.*']"),
            ([[("x.*", "other"), ("a.*", "q")]], "task_routes['a.*']"),
            ({re.compile("a[.]b"): "q"}, "task_routes[re.compile('a[.]b')]"),
            ([{"x": "other"}, {"a.*": "q"}], "task_routes[1]['a.*']"),
            ({"*": "other", "a.b": "q"}, "task_routes['a.b']"),
            ({"a.*": "q", "*.b": "other"}, "task_routes['a.*']"),
        ],
    )
    def test_are_found_as_they_are_written(self, station, route, routes, rule):
        station.app.conf.task_routes = routes

        assert (route("a.b").rule, route("a.b").queue) == (rule, "q")

    @pytest.mark.parametrize("router", [by_tenant, f"{__name__}.by_tenant"])
    def test_may_be_functions(self, station, route, router):
        station.app.conf.task_routes = [{"a": "q"}, router]

        assert (route("tenants.x").rule, route("tenants.x").queue) == (
            f"task_routes[1]: {__name__}.by_tenant",
            "tenants",
        )
        assert route("other").rule == "task_default_queue"

    def test_may_be_objects_of_old(self, station, route):
        station.app.conf.task_routes = OldRouter()

        assert (route("old.work").rule, route("old.work").queue) == (f"task_routes: {__name__}.OldRouter", "old")

    def test_may_fail_without_arguments(self, station, route):
        station.app.conf.task_routes = of_first_argument

        assert route("a").error == "the router fails for a task without arguments: IndexError: tuple index out of range"
        assert route("a").queue == ""

    def test_may_name_an_exchange_and_a_key(self, station, route):
        station.app.conf.task_queues = [Queue("feed", Exchange("news", "topic"), routing_key="news.#")]
        station.app.conf.task_routes = {
            "a": {"exchange": "news", "exchange_type": "topic", "routing_key": "news.sport"}
        }

        found = route("a")

        assert (found.queue, found.exchange, found.routing_key) == ("feed", "news", "news.sport")

    def test_may_lead_nowhere(self, station, route):
        station.app.conf.task_queues = [Queue("feed", Exchange("news", "topic"), routing_key="news.#")]
        station.app.conf.task_routes = {"a": {"exchange": "news", "routing_key": "weather"}}

        assert route("a").error == "no queue that the app knows is bound to 'news' with 'weather'"

    def test_that_say_nothing_leave_it_to_the_default_queue(self, station, route):
        station.app.conf.task_routes = [{"a": {}}, {"a": "q"}]

        assert (route("a").rule, route("a").queue) == ("task_default_queue", station.queue)


def test_a_queue_that_is_missing_is_told_and_not_made(lay, route, station):
    lay(but={"task_routes": {"a": "nowhere"}})

    assert route("a").error == "Queue 'nowhere' missing from task_queues"
    with pytest.raises(QueueNotFound):
        station.app.send_task("a")


def test_where_celery_makes_queues_none_is_made_by_looking(station, route):
    station.app.conf.task_routes = {"a": "new"}

    assert route("a").queue == "new"
    assert "new" not in station.app.amqp.queues


@pytest.mark.parametrize("name", ["reports.a", "other", "own"])
def test_it_is_where_the_message_really_goes(lay, station, route, task, name):
    app = lay(reports=Lane(tasks=["reports.*"], priority="low"), fast=Lane())
    task("own", base=None, queue="fast")
    with app.connection_for_write() as connection:
        for queue in app.amqp.queues.values():
            queue(connection.default_channel).declare()
            queue(connection.default_channel).purge()
        found = route(name)

        (app.tasks[name].apply_async if name == "own" else lambda: app.send_task(name))()

        message = app.amqp.queues[found.queue](connection.default_channel).get()
        assert message.headers["task"] == name
        assert message.properties.get("priority") == found.priority
        assert message.delivery_info["routing_key"] == found.routing_key


def test_known_queues_are_those_of_the_lanes_else_those_declared(lay, station, settings):
    lay(reports=Lane(queue="r"))
    station.app.conf.task_queues = {"q": {}}
    assert known_queues(station.app) == {"default", "r"}

    del settings.TASKKIT_LANES
    assert known_queues(station.app) == {"q"}

    station.app.conf.task_queues = None
    assert known_queues(station.app) == set()


def test_lanes_that_are_broken_are_refused(station, settings):
    settings.TASKKIT_LANES = {"x": 3}

    with pytest.raises(ConfigurationError, match="TASKKIT_LANES"):
        explain(station.app, [])


def test_own_tasks_are_the_projects(task, station):
    task("b")
    task("a")

    assert own_tasks(station.app) == ["a", "b"]
    assert "celery.chord" in station.app.tasks


def test_a_broker_whose_client_is_missing_has_no_names_for_its_priorities(lay, route, station):
    lay(broker="redis://", **by_priority(low=["low.*"]))
    station.app.conf.broker_url = "carrier-pigeon://"

    assert (route("low.x").priority, route("low.x").priority_name, route("low.x").queue) == (9, "", "low")
