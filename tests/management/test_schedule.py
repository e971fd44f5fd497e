"""taskkit schedule: which outage the retries of a task outlive, before there is one."""

import io
import json
from datetime import timedelta

import pytest
from django.core.management import call_command

from django_taskkit.backoff import Backoff, NoJitter
from django_taskkit.base_tasks import BaseTaskWithRetry, RetryPolicy
from django_taskkit.base_tasks.decision import Again, Failure, decide
from django_taskkit.base_tasks.rules import rules_of
from django_taskkit.base_tasks.verdicts import Permanent
from django_taskkit.management.schedule_report import percent
from tests.management.test_taskkit import run
from tests.management.test_terminal import Terminal


class Busy(Exception):
    """The supplier has too much to do."""


@pytest.fixture
def said(capsys):
    """What the verb prints; it must end with this exit code."""

    def said(*arguments, code=0):
        assert run("schedule", *arguments) == code
        captured = capsys.readouterr()
        return captured.out if code == 0 else captured.err

    return said


@pytest.fixture
def facts(said):
    def facts(*arguments):
        return [json.loads(line) for line in said(*arguments, "--json").splitlines()]

    return facts


def row(text, first):
    """The cells of the row that begins with `first`."""
    [line] = [line for line in text.splitlines() if line.split(" ")[0] == first]
    return [cell.strip() for cell in line.split("  ") if cell]


class TestTables:
    def test_each_retry_has_a_row(self, task, said):
        task(retry_jitter=False)

        text = said("orders.tasks.send")

        assert text.splitlines()[0] == "orders.tasks.send, after Exception"
        assert row(text, "RETRY") == ["RETRY", "DELAY", "P50", "STARTS AFTER", "P50", "WITHIN 1s"]
        assert row(text, "1") == ["1", "1s", "1s", "1s", "1s", "100%"]
        assert row(text, "5") == ["5", "16s", "16s", "31s", "31s", "0%"]
        assert "Survives an outage of 31s in 99% of cases, of 31s in 50%." in text
        assert "Dead 31s after the first failure if the outage goes on." in text
        assert "random" not in text

    def test_chance_gives_ranges(self, task, said):
        task()

        text = said("orders.tasks.send")

        assert row(text, "5")[1:4:2] == ["8s - 16s", "16s - 31s"]
        assert "Dead 16s - 31s after the first failure" in text
        assert "Computed from 10000 random cases." in text

    def test_outages_are_shown_until_none_is_survived(self, task, said):
        task(retry_jitter=False)

        text = said("orders.tasks.send")

        assert row(text, "10s") == ["10s", "100%", "3 of 5"]
        assert row(text, "1m") == ["1m", "0%", "5 of 5"]
        assert "\n10m " not in text

    def test_those_that_are_asked_for_are_shown_all(self, task, said):
        task(retry_jitter=False)

        text = said("orders.tasks.send", "--outage", "2h", "--outage", "20", "--outage", "10m")

        assert row(text, "20s") == ["20s", "100%", "4 of 5"]
        assert row(text, "10m") == ["10m", "0%", "5 of 5"]
        assert row(text, "2h") == ["2h", "0%", "5 of 5"]
        assert "\n1m " not in text

    def test_a_hundred_retries_are_not_shown_one_by_one(self, task, said):
        task(max_retries=100, retry_jitter=False)

        text = said("orders.tasks.send")

        assert row(text, "15")
        assert "\n16 " not in text
        assert row(text, "...")
        assert row(text, "100")[3] == "15h 17m"

    def test_a_deadline_is_said(self, task, said):
        task(retry_for=timedelta(seconds=20))

        text = said("orders.tasks.send")

        assert row(text, "RETRY")[-1] == "ODDS"
        assert row(text, "1")[-1] == "100%"
        assert "retry_for of 20s ends the retries in" in text

    def test_a_deadline_that_changes_nothing_is_said_as_well(self, task, said):
        task(retry_for=timedelta(days=1))

        assert "retry_for of 1d changes nothing: max_retries of 5 ends them before." in said("orders.tasks.send")

    def test_retries_without_a_limit_survive_everything(self, task, said):
        task(max_retries=None)

        text = said("orders.tasks.send", "--outage", "1d")

        assert "any outage is survived" in text
        assert row(text, "1d")[1] == "100%"
        assert "Dead" not in text

    def test_more_retries_than_can_be_looked_at_are_said(self, task, said):
        task(max_retries=5000, retry_backoff_max=10, retry_jitter=False)

        text = said("orders.tasks.send", "--outage", "1d", "--outage", "1m")

        assert "Survives an outage of at least 5h 32m in 99% of cases" in text
        assert "It has more than 2000 retries; only those were looked at." in text
        assert row(text, "1m")[2] == "8"
        assert row(text, "1d")[2] == "at least 2000"

    def test_a_task_without_retries_has_no_table(self, task, said):
        task(max_retries=0)

        assert said("orders.tasks.send") == (
            "orders.tasks.send, after Exception\nNever retried: dead at the first failure.\n\n"
        )

    def test_what_is_not_known_before_a_run_is_named(self, task, said):
        class Deciding(BaseTaskWithRetry):
            abstract = True

            def retry_in(self, exc, attempt):
                return 5

        task(base=Deciding, retry_budget="supplier")

        assert "Not in these numbers: retry_in(), retry_budget." in said("orders.tasks.send")


class TestPolicies:
    def test_each_has_its_own_tables(self, task, said):
        task(retry_policies={Busy: RetryPolicy(max_retries=2, backoff=30, jitter=False), KeyError: Permanent})

        text = said("orders.tasks.send", "--no-plot")

        default, busy, key_error = text.split("orders.tasks.send, after ")[1:]
        assert "max_retries=5" in default
        assert busy.startswith(f"{Busy.__module__}.Busy\n")
        assert row(busy, "2")[3] == "1m 30s"
        assert key_error == "KeyError\nNever retried: dead at the first failure.\n\n"

    def test_one_that_forbids_retries_says_so_in_json(self, task, facts):
        task(retry_policies={KeyError: Permanent})

        assert facts("orders.tasks.send")[1] == {"task": "orders.tasks.send", "policy": "KeyError", "retried": False}

    def test_the_deadline_of_the_task_holds_for_each(self, task, facts):
        task(retry_for=40, retry_policies={Busy: RetryPolicy(backoff=30, jitter=False, retry_for=3600)})

        default, busy = facts("orders.tasks.send")

        assert default["deadline"] == busy["deadline"] == 40
        assert [retry["start"]["most"] for retry in busy["retries"]] == [30]


class TestTheBroker:
    def test_of_memory_holds_anything(self, task, said):
        task()

        assert "No delay is longer than the broker (memory) holds safely: any delay." in said("orders.tasks.send")

    def test_of_redis_holds_half_of_its_visibility_timeout(self, station, task, said, facts):
        station.app.conf.broker_url = "redis://127.0.0.1:1/0"  # nothing listens there, and nothing connects
        task(retry_backoff=900, retry_backoff_max=7200, max_retries=3, retry_jitter=False)

        text = said("orders.tasks.send")

        assert row(text, "RETRY")[-1] == "OUTBOX"
        assert [row(text, number)[-1] for number in "123"] == ["0%", "0%", "100%"]
        assert "The broker (redis) holds delays up to 30m safely; retry 3 may wait longer." in text
        assert "Those wait in the outbox" in text
        assert facts("orders.tasks.send")[0]["broker"] == {"driver": "redis", "holds": 1800.0, "outbox": True}

    def test_is_warned_of_where_the_outbox_is_off(self, station, task, said, settings):
        settings.TASKKIT = {"OUTBOX": "never", "LONG_DELAY": 3}
        task()

        text = said("orders.tasks.send")

        assert "holds delays up to 3s safely; retries 3 to 5 may wait longer." in text
        assert "The outbox, which is off, would keep them" in text

    def test_that_delays_natively_holds_more(self, station, task, facts):
        from kombu import Queue

        station.app.conf.broker_url = "amqp://127.0.0.1:1//"
        station.app.conf.task_queues = [Queue("orders", queue_arguments={"x-queue-type": "quorum"})]
        task()

        assert facts("orders.tasks.send")[0]["broker"]["holds"] == 2**28

    def test_that_is_unknown_here_is_said_in_one_line(self, station, task, said):
        station.app.conf.broker_url = "carrier-pigeon://"
        task()

        assert "No such transport: carrier-pigeon" in said("orders.tasks.send", code=1)


class TestWhichTasks:
    def test_all_are_those_that_are_retried(self, task, facts):
        task("orders.tasks.send")
        task("billing.tasks.charge")
        task("billing.tasks.plain", base=None)

        assert [fact["task"] for fact in facts("--all")] == ["billing.tasks.charge", "orders.tasks.send"]

    def test_a_star_stands_for_anything(self, task, facts):
        for name in ("orders.tasks.send", "orders.tasks.pack", "billing.tasks.charge"):
            task(name)

        assert [fact["task"] for fact in facts("orders.*", "orders.tasks.send")] == [
            "orders.tasks.pack",
            "orders.tasks.send",
        ]

    @pytest.mark.parametrize("name", ["orders.tasks.sned", "send", "tasks.send", "shop.tasks.send"])
    def test_one_that_is_not_there_is_guessed_at(self, task, said, name):
        task("orders.tasks.send")

        assert f"There is no task '{name}'. Did you mean orders.tasks.send?" in said(name, code=1)

    def test_one_that_is_like_no_other_is_named(self, task, said):
        task("orders.tasks.send")

        assert "There is no task 'zzz'" in said("zzz", code=1)
        assert "There is no task 'zzz.*'" in said("zzz.*", code=1)

    def test_there_may_be_nothing_to_guess(self, station, said):
        assert "There is no task 'orders.tasks.send'; the app station has none at all." in said(
            "orders.tasks.send", code=1
        )

    def test_one_that_nothing_retries_says_what_to_do(self, task, said, facts):
        task("orders.tasks.plain", base=None)

        assert said("orders.tasks.plain") == (
            "orders.tasks.plain is not retried by itself: it has no autoretry_for, and no base class that retries. "
            "Give it base=BaseTaskWithRetry (from django_taskkit.base_tasks).\n\n"
        )
        assert facts("orders.tasks.plain")[0]["policy"] is None

    def test_there_may_be_none(self, station, said):
        assert "No task of this project is retried by itself" in said("--all")

    @pytest.mark.parametrize("arguments", [(), ("orders.tasks.send", "--all")])
    def test_one_has_to_be_named_or_all(self, station, said, arguments):
        assert "Name a task, or say --all" in said(*arguments, code=2)

    def test_one_whose_options_make_no_sense_hides_no_other(self, task, capsys):
        task("orders.tasks.broken", max_retries=-1)
        task("orders.tasks.send")

        assert run("schedule", "--all", "--skip-checks") == 1  # they would say so first, and end it

        captured = capsys.readouterr()
        assert captured.out.startswith("orders.tasks.send, after Exception\n")
        assert "orders.tasks.broken: max_retries" in captured.err

    def test_without_the_projects_app_it_says_so(self, no_app, said):
        assert "No Celery app is loaded" in said("--all", code=1)


class TestCelerysOwnRetries:
    def test_are_computed_as_celery_does(self, task, facts):
        task(base=None, autoretry_for=(OSError,), retry_backoff=True, max_retries=5)

        [fact] = facts("orders.tasks.send")

        # Measured with Celery itself: 3 s and 15 s (reference: backoff 1, 5 retries, full jitter).
        assert fact["survives"]["0.99"] == pytest.approx(3, abs=1)
        assert fact["survives"]["0.5"] == pytest.approx(15, abs=1)
        assert fact["total"]["least"] == 0
        assert fact["total"]["most"] == 31

    def test_without_a_backoff_come_every_three_minutes(self, task, facts):
        task(base=None, autoretry_for=(OSError,))

        [fact] = facts("orders.tasks.send")

        assert fact["exact"]
        assert [retry["start"]["median"] for retry in fact["retries"]] == [180, 360, 540]

    def test_are_named_so(self, task, said):
        task(base=None, autoretry_for=(OSError,), retry_kwargs={"countdown": 7, "max_retries": 2})

        text = said("orders.tasks.send")

        assert text.startswith("orders.tasks.send, after OSError (Celery's own autoretry)\n")
        assert row(text, "2")[3] == "14s"


class TestNumbers:
    def test_the_same_seed_gives_the_same(self, task, said):
        task(retry_backoff=100)

        assert said("orders.tasks.send", "--seed", "5") == said("orders.tasks.send", "--seed", "5")
        assert said("orders.tasks.send", "--seed", "5") != said("orders.tasks.send", "--seed", "6")

    def test_samples_may_be_few(self, task, said):
        task()

        assert "Computed from 10 random cases" in said("orders.tasks.send", "--samples", "10")

    @pytest.mark.parametrize("number", ["0", "-1", "many", "1000001"])
    def test_samples_that_make_no_sense_are_refused(self, task, said, number):
        assert "give a number of tasks" in said("orders.tasks.send", f"--samples={number}", code=2)

    def test_json_has_everything(self, task, facts):
        task(retry_backoff=Backoff(base=2, jitter=NoJitter()), max_retries=2)

        [fact] = facts("orders.tasks.send", "--outage", "3")

        assert fact["retries"][1] == {
            "retry": 2,
            "delay": {"least": 4, "median": 4, "most": 4},
            "start": {"least": 6, "median": 6, "most": 6},
            "odds": 1.0,
            "soon": 0.0,
            "beyond_broker": 0.0,
        }
        assert fact["survives"] == {"0.99": 6, "0.5": 6}
        assert fact["outages"] == [{"outage": 3.0, "odds": 1.0, "wasted": 1.0}]
        assert fact["broker"] == {"driver": "memory", "holds": None, "outbox": True}
        assert (fact["exact"], fact["endless"], fact["cut"], fact["samples"]) == (True, False, False, 1)

    def test_json_has_null_where_there_is_no_limit(self, task, facts):
        task(max_retries=None)

        [fact] = facts("orders.tasks.send")

        assert fact["survives"] == {"0.99": None, "0.5": None}
        assert fact["total"] is None
        assert fact["endless"]


@pytest.mark.parametrize(
    ("odds", "text"),
    [(0, "0%"), (1e-9, "<1%"), (0.01, "1%"), (0.5, "50%"), (0.99, "99%"), (0.9999, ">99%"), (1, "100%")],
)
def test_only_what_is_certain_is_called_so(odds, text):
    assert percent(odds) == text


class TestThePlot:
    def test_fits_the_terminal(self, task, monkeypatch):
        monkeypatch.setenv("COLUMNS", "60")
        task(max_retries=12)
        stream = Terminal()

        call_command("taskkit", "schedule", "orders.tasks.send", stdout=stream)

        plot = stream.getvalue().splitlines()[-19:-1]
        assert plot[0].startswith("   100 % ██")
        assert plot[5].strip().startswith("1s")
        assert plot[6] == " retry 1 ●"
        assert max(map(len, plot)) <= 60

    def test_is_drawn_with_what_the_terminal_has(self, task):
        task()
        raw = io.BytesIO()
        stream = io.TextIOWrapper(raw, encoding="ascii", newline="\n")

        call_command("taskkit", "schedule", "orders.tasks.send", stdout=stream)
        stream.flush()

        text = raw.getvalue().decode("ascii")
        assert "retry 5 " in text
        assert "|---" in text
        assert "\\u" not in text

    def test_may_be_left_out(self, task, said):
        task()

        assert "●" in said("orders.tasks.send")
        assert "●" not in said("orders.tasks.send", "--no-plot")


class TestWhatIsForetoldHappens:
    """The engine decides, with a clock that jumps to each retry."""

    @staticmethod
    def delays(task, exc, uniform):
        rules, began, now, delays, by = rules_of(task), 1_793_000_000.0, 1_793_000_000.0, [], {}
        while True:
            name = rules.match(exc)[0]
            failure = Failure(
                exc=exc,
                now=now,
                retries=len(delays),
                retries_by=by,
                first_failed_at=began,
                previous_delay=delays[-1] if delays else None,
            )
            decision = decide(rules, failure, uniform=uniform)
            if not isinstance(decision, Again):
                return delays
            delays.append(decision.delay)
            now += decision.delay
            by = {name: len(delays)} if name else {}

    @pytest.mark.parametrize("pick", [min, max])
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"retry_jitter": "full", "retry_backoff": 7, "max_retries": 9},
            {"retry_jitter": "decorrelated", "retry_backoff": 2, "max_retries": 6},
            {"retry_backoff_min": 3, "retry_backoff_max": 20, "max_retries": 12},
        ],
    )
    def test_at_the_earliest_and_at_the_latest(self, task, facts, options, pick):
        send = task(**options)

        [fact] = facts("orders.tasks.send")

        end = {min: "least", max: "most"}[pick]
        assert [retry["delay"][end] for retry in fact["retries"]] == self.delays(
            send, ValueError(), lambda low, high: pick(low, high)
        )

    @pytest.mark.parametrize(("exc", "number"), [(ValueError(), 0), (Busy(), 1), (ConnectionError(), 2)])
    def test_by_each_policy_and_until_each_deadline(self, task, facts, exc, number):
        send = task(
            retry_for=100,
            max_retries=9,
            retry_jitter=False,
            retry_policies={
                Busy: RetryPolicy(max_retries=None, backoff=5, factor=1, jitter=False, retry_for=33),
                OSError: RetryPolicy(max_retries=None, backoff=3, jitter=False, retry_for=1000),
            },
        )

        fact = facts("orders.tasks.send")[number]

        assert [retry["delay"]["median"] for retry in fact["retries"]] == self.delays(send, exc, max)
        assert fact["total"]["most"] <= fact["deadline"]
