"""taskkit routes: where tasks go, by which rule, and who takes them."""

import json

import pytest
from django.core.management import call_command

from django_taskkit.management import routes
from django_taskkit.observability.workers import WorkerState
from django_taskkit.routing import Lane, by_priority, lanes
from tests.management.test_taskkit import run
from tests.management.test_terminal import Terminal


@pytest.fixture
def lay(station, settings):
    def lay(broker="memory://", but=None, **options):
        made = lanes(broker=broker, namespace="", **options) | (but or {})
        settings.TASKKIT_LANES = made.pop("TASKKIT_LANES")
        station.app.conf.update(broker_url=broker, **made)

    return lay


@pytest.fixture
def said(capsys):
    """What the verb prints; it must end with this exit code."""

    def said(*arguments, code=0):
        assert run("routes", "--skip-checks", *arguments) == code
        captured = capsys.readouterr()
        return captured.out + captured.err

    return said


@pytest.fixture
def facts(capsys):
    def facts(*arguments, kind="route", code=0):
        assert run("routes", "--skip-checks", "--json", *arguments) == code
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return [line for line in lines if line["kind"] == kind]

    return facts


def cells(text, first):
    [line] = [line for line in text.splitlines() if line.split(" ")[0] == first]
    return [cell.strip() for cell in line.split("  ") if cell]


class TestWithLanes:
    def test_each_task_has_a_row(self, lay, task, said):
        lay(broker="redis://", **by_priority(low=["reports.*"]))
        task("reports.build")
        task("orders.send")

        text = said()

        assert cells(text, "TASK") == ["TASK", "QUEUE", "LANE", "PRIORITY", "RULE", "SENT TO"]
        assert cells(text, "reports.build") == [
            "reports.build",
            "low",
            "low",
            "9 (low)",
            "task_routes['reports.*']",
            "the queue",
        ]
        assert cells(text, "orders.send")[1:4] == ["default", "default", "6 (default)"]
        assert "celery." not in text

    def test_a_topic_exchange_is_shown(self, lay, said, settings):
        settings.TASKKIT = {"INTAKE_QUEUES": ["taskkit.dead"]}
        lay(broker="amqp://", reports=Lane(tasks=["reports.*"]))

        assert cells(said("reports.x"), "reports.x")[5] == "taskkit.lanes, reports"

    def test_json_says_the_same(self, lay, task, facts):
        lay(reports=Lane(tasks=["reports.*"]))
        task("reports.build")

        assert facts() == [
            {
                "kind": "route",
                "task": "reports.build",
                "registered": True,
                "rule": "task_routes['reports.*']",
                "queue": "reports",
                "exchange": "",
                "exchange_type": "direct",
                "routing_key": "reports",
                "priority": None,
                "priority_name": "",
                "lanes": ["reports"],
                "error": "",
            }
        ]

    def test_lanes_that_share_a_queue_are_all_named(self, lay, said):
        lay(one=Lane(tasks=["a"], queue="shared"), two=Lane(queue="shared"))

        assert cells(said("a"), "a")[2] == "one, two"


class TestWhichTasks:
    def test_one_that_is_not_there_is_looked_at_by_its_name(self, lay, task, said):
        lay(reports=Lane(tasks=["reports.*"]))
        task("reports.build")

        text = said("reports.biuld")

        assert cells(text, "reports.biuld")[1] == "reports"
        assert "There is no task 'reports.biuld' in this project; only its name was looked at." in text
        assert "Did you mean reports.build?" in text

    def test_one_that_is_like_no_other_is_not_guessed_at(self, lay, task, said):
        lay()
        task("reports.build")

        assert "Did you mean" not in said("zzz")

    def test_a_star_stands_for_anything(self, lay, task, facts, said):
        lay()
        for name in ("a.x", "a.y", "b.x"):
            task(name)

        assert [fact["task"] for fact in facts("a.*", "b.x")] == ["a.x", "a.y", "b.x"]
        assert "No task of this project fits 'c.*'" in said("c.*", code=1)

    def test_an_empty_name_is_none(self, lay, said):
        lay()

        assert "'' is no task's name; without a name, all are shown." in said("", code=1)

    def test_there_may_be_none(self, lay, said):
        lay()

        assert "This project has no tasks." in said()


class TestProblems:
    def test_end_it_with_1_and_a_remedy(self, lay, task, said):
        lay(but={"task_routes": {"a": "nowhere"}})
        task("a")

        text = said(code=1)

        assert cells(text, "a")[:2] == ["a", "?"]
        assert "The task a can't be sent, by task_routes['a']: Queue 'nowhere' missing from task_queues." in text
        assert "(taskkit.E030)\n  Correct the rule, or add a lane with that queue." in text
        assert "1 problem found." in text

    def test_are_lines_of_json(self, lay, task, facts):
        lay(but={"task_routes": {"a": "nowhere"}})
        task("a")

        [problem] = facts(kind="problem", code=1)
        assert (problem["id"], problem["task"]) == ("taskkit.E030", "a")

    def test_of_other_tasks_don_t_matter_to_a_named_one(self, lay, task, said):
        lay(but={"task_routes": {"a": "nowhere"}})
        task("a")
        task("b")

        said("b")
        said("a", code=1)

    def test_of_a_name_that_is_not_there_count_as_well(self, lay, said):
        lay(but={"task_routes": {"a.*": "nowhere"}})

        assert "1 problem found." in said("a.b", code=1)

    def test_that_make_the_lanes_useless_are_said_in_a_sentence(self, station, settings, said):
        settings.TASKKIT_LANES = {"x": 3}

        assert "let django_taskkit.routing.lanes() make it" in said(code=1)


class TestLive:
    @pytest.fixture
    def workers(self, monkeypatch):
        """Workers that would answer; tests/live/test_lanes.py has real ones."""
        there = []
        monkeypatch.setattr(routes.workers, "ask", lambda app, timeout: list(there))
        return there

    @pytest.fixture(autouse=True)
    def declared(self, station, task):
        task("reports.build")

    def test_who_reads_a_queue_is_shown(self, lay, workers, said, facts):
        lay(reports=Lane(tasks=["reports.*"]))
        workers += [WorkerState(hostname=f"{name}@host", queues=(name, "default")) for name in ("reports", "other")]

        assert cells(said("--live"), "reports.build")[-1] == "reports@host"
        assert facts("--live", kind="queue") == [
            {"kind": "queue", "queue": "reports", "read_by": ["reports@host"]},
            {"kind": "queue", "queue": "default", "read_by": ["other@host", "reports@host"]},
            {"kind": "queue", "queue": "other", "read_by": ["other@host"]},
        ]

    def test_a_queue_that_nobody_reads_is_a_problem(self, lay, workers, station, said):
        lay(reports=Lane(tasks=["reports.*"]))
        workers.append(WorkerState(hostname="default@host", queues=("default",)))
        with station.app.connection_for_write() as connection:
            queue = station.app.amqp.queues["reports"](connection.default_channel)
            queue.declare()
            queue.purge()
        station.app.send_task("reports.build")

        text = said("--live", code=1)

        assert cells(text, "reports.build")[-1] == "nobody that answers"
        assert "Nobody reads the queue 'reports'; 1 message waiting." in text
        assert "manage.py taskkit workers" in text

    def test_a_named_task_asks_for_its_own_queue_only(self, lay, workers, said):
        lay(reports=Lane(tasks=["reports.*"]))
        workers.append(WorkerState(hostname="default@host", queues=("default",)))

        said("--live", "other")
        said("--live", "reports.x", code=1)

    def test_what_a_worker_says_does_not_move_the_cursor(self, lay, workers, said):
        lay()
        workers.append(WorkerState(hostname="bad\x1b[2J@host", queues=("default",)))

        assert "bad\\x1b[2J@host" in said("--live")

    def test_a_broker_that_is_away_is_said_in_a_sentence(self, lay, said):
        lay(broker="redis://127.0.0.1:1/0")

        assert "the broker can't be reached" in said("--live", "--timeout", "0.5", code=1)

    def test_no_time_to_answer_in_is_refused(self, lay, said):
        lay()

        for nothing in ("0", "0s"):
            assert f"'{nothing}' is no time to answer in" in said("--live", "--timeout", nothing, code=2)


class TestWithoutLanes:
    def test_it_works_as_well(self, station, task, said):
        task("a")
        station.app.conf.task_routes = {"a": "special"}

        assert cells(said(), "a")[1:4] == ["special", "-", "-"]

    def test_without_an_app_it_says_so(self, no_app, said):
        assert "No Celery app is loaded" in said(code=1)


def test_on_a_terminal_it_is_as_wide_as_that(lay, task, monkeypatch):
    lay(reports=Lane(tasks=["reports.*"]))
    task("reports.build")
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "70")

    call_command("taskkit", "routes", stdout=terminal, skip_checks=True)

    assert max(map(len, terminal.getvalue().splitlines())) <= 70
