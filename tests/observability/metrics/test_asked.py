"""What the exporter asks for: queues, outbox, spool, dead letters, relay, beat, breakers and budgets."""

import logging
from datetime import timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.base_tasks.gates.breaker import CircuitBreaker, State
from django_taskkit.beat.model import BeatLease
from django_taskkit.dlq.durable import NoConnectionError
from django_taskkit.exceptions import BrokerUnreachableError
from django_taskkit.models import OutboxMessage, RelayHeartbeat
from django_taskkit.observability import queues, workers
from django_taskkit.observability.metrics import asked, labels
from django_taskkit.observability.metrics.asked import Asked
from tests.letters import dead_letter

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def spool_folder(settings, tmp_path):
    settings.TASKKIT = {"SPOOL_DIR": str(tmp_path / "spool")}
    labels.forget()
    yield tmp_path / "spool"
    labels.forget()


@pytest.fixture
def numbers(station):
    """``numbers(part)``: what one part answers, by metric and labels."""

    def numbers(part, *arguments):
        found = list(part(station.app, *arguments))
        by_name = {(sample.metric.name.removeprefix("taskkit_"), *sample.labels): sample.value for sample in found}
        assert len(by_name) == len(found), "a number is there twice"
        return by_name

    return numbers


@pytest.fixture
def add(station):
    @station.app.task(name="shop.add")
    def add(*numbers): ...

    return add


def test_messages_of_a_queue(station, add, numbers):
    for _ in range(3):
        add.delay()

    found = numbers(asked.of_queues, [station.queue])

    assert found["lane_messages", station.queue] == 3


def test_an_empty_queue_has_an_age_of_0_rather_than_none(station, numbers):
    found = numbers(asked.of_queues, [station.queue])

    assert found["lane_messages", station.queue] == 0
    assert found["lane_oldest_age_seconds", station.queue] == 0


def test_without_lanes_it_asks_about_the_queues_of_the_app(station):
    assert asked.queues_of(station.app) == [station.queue]


def test_lanes_are_asked_about_by_their_queues(station, settings, numbers):
    settings.TASKKIT_LANES = {"fast": {"queue": "shop.fast"}, "slow": {}}
    labels.forget()

    assert asked.queues_of(station.app) == sorted(["shop.fast", "slow", station.queue])
    assert numbers(asked.of_queues, ["shop.fast"])["lane_messages", "fast"] == 0


@pytest.fixture
def each_has_one(monkeypatch):
    """Each queue has one message and one consumer; a list of the names in each question."""
    questions = []

    def look(app, names, timeout):
        questions.append(list(names))
        return [
            queues.QueueState(name=name, depth=1, oldest=float(number), consumers=1, kind="classic")
            for number, name in enumerate(names)
        ]

    monkeypatch.setattr(queues, "look", look)
    return questions


def test_however_many_queues_an_operator_names_each_has_its_own_numbers(each_has_one, numbers):
    found = numbers(asked.of_queues, [f"queue-{number}" for number in range(labels.MOST_LANES + 20)])

    assert len([key for key in found if key[0] == "lane_messages"]) == labels.MOST_LANES + 20


def test_a_lane_with_the_name_of_another_queue_is_shown_once_with_the_sum_of_both(each_has_one, numbers, settings):
    settings.TASKKIT_LANES = {"fast": {"queue": "shop.fast"}}
    labels.forget()

    assert numbers(asked.of_queues, ["shop.fast", "fast"]) == {
        ("lane_messages", "fast"): 2,
        ("lane_oldest_age_seconds", "fast"): 1,
        ("lane_consumers", "fast"): 2,
    }


def test_what_waits_is_shown_also_if_the_workers_can_not_be_asked(station, numbers, monkeypatch):
    def refuse(app, timeout):
        raise BrokerUnreachableError("it is gone again")

    monkeypatch.setattr(workers, "ask", refuse)

    assert numbers(asked.of_queues, [station.queue]).keys() == {
        ("lane_messages", station.queue),
        ("lane_oldest_age_seconds", station.queue),
    }


def test_the_broker_is_asked_once_for_all_queues(station, settings, each_has_one):
    settings.TASKKIT = {**settings.TASKKIT, "SPOOL_QUEUE": "spool"}

    found = {(sample.metric.name, *sample.labels): sample.value for sample in Asked(station.app).samples()}

    assert each_has_one == [[station.queue, "spool"]]
    assert found["taskkit_spool_entries", "queue"] == 1
    assert ("taskkit_lane_messages", "spool") not in found


def test_the_outbox(station, add, numbers):
    for _ in range(3):
        add.apply_async(outbox=True)
    now = timezone.now()
    first, second, third = OutboxMessage.objects.order_by("pk")
    OutboxMessage.objects.filter(pk=first.pk).update(created_at=now - timedelta(minutes=3))
    OutboxMessage.objects.filter(pk=second.pk).update(
        created_at=now - timedelta(days=3), due_at=now - timedelta(minutes=4)
    )
    OutboxMessage.objects.filter(pk=third.pk).update(
        created_at=now - timedelta(days=3), due_at=now + timedelta(minutes=5)
    )

    with CaptureQueriesContext(connection) as queries:
        found = numbers(asked.of_outbox)

    assert (found["outbox_messages", "due"], found["outbox_messages", "later"]) == (2, 1)
    assert 240 <= found["outbox_oldest_age_seconds",] < 300
    assert len(queries) == 1


def test_an_empty_outbox(numbers):
    assert set(numbers(asked.of_outbox).values()) == {0}


def test_files_of_the_spool(numbers, spool_folder):
    assert numbers(asked.of_spool)["spool_entries", "files"] == 0

    spool_folder.mkdir()
    (spool_folder / "1-a.json").touch()

    assert numbers(asked.of_spool)["spool_entries", "files"] == 1


def test_dead_letters_by_reason(numbers):
    dead_letter("one", reason="permanent")
    dead_letter("two", reason="permanent")
    dead_letter("three", reason="permanent", status="recovered")
    dead_letter("four", reason="expired", status="held")

    with CaptureQueriesContext(connection) as queries:
        found = numbers(asked.of_dead_letters)

    assert found["dead_letters", "permanent"] == 2
    assert found["dead_letters", "expired"] == 1
    assert found["dead_letters", "exception"] == 0
    assert len(queries) == 1


def test_the_relay(numbers):
    assert numbers(asked.of_relay) == {}

    for minutes in (5, 50):
        seen = timezone.now() - timedelta(minutes=minutes)
        RelayHeartbeat.objects.create(name=f"relay {minutes}", started_at=seen, seen_at=seen)

    assert 300 <= numbers(asked.of_relay)["relay_last_seen_age_seconds",] < 360


def test_beat(station, numbers):
    assert numbers(asked.of_beat) == {}

    seen = timezone.now().timestamp() - 70
    BeatLease.objects.create(
        name=station.app.main, holder="h", host="web1", pid=7, scheduler="s", started_at=seen, seen_at=seen
    )

    assert 70 <= numbers(asked.of_beat)["beat_last_seen_age_seconds",] < 130


def test_breakers_and_budgets(station, numbers, monkeypatch):
    @station.app.task(name="shop.charge", base=BaseTaskWithRetry, breaker="stripe", retry_budget="stripe")
    def charge(): ...

    assert numbers(asked.of_gates) == {("breaker_open", "stripe"): 0, ("retry_budget_ratio", "stripe"): 1}

    monkeypatch.setattr(CircuitBreaker, "state", lambda self: State.OPEN)
    assert numbers(asked.of_gates)["breaker_open", "stripe"] == 1


def test_a_part_that_gets_no_answer_hides_no_other_and_is_said_once(station, monkeypatch, caplog):
    def refuse(app):
        raise OSError("the database is away")

    monkeypatch.setattr(asked, "of_outbox", refuse)
    now = [0.0]
    parts = Asked(station.app, clock=lambda: now[0])
    with caplog.at_level(logging.INFO, "django_taskkit"):
        for now[0] in (0.0, 60.0):
            answered = {
                sample.labels[0]: sample.value
                for sample in parts.samples()
                if sample.metric.name == "taskkit_exporter_answered"
            }
        monkeypatch.undo()
        now[0] = 120.0
        parts.samples()

    assert answered["outbox"] == 0
    assert {part for part, value in answered.items() if value} == answered.keys() - {"outbox"}
    assert [record.message for record in caplog.records if "outbox" in record.message] == [
        "metrics: the part 'outbox' gets no answer: OSError: the database is away",
        "metrics: the part 'outbox' gets answers again",
    ]


def test_an_answer_is_given_again_for_some_seconds(station):
    now = [0.0]
    parts = Asked(station.app, clock=lambda: now[0])

    first = parts.samples()
    now[0] = 4.9
    assert parts.samples() is first
    now[0] = 5.1
    assert parts.samples() is not first


def test_a_database_out_of_reach_is_waited_for_once(station, monkeypatch):
    asked_for = []

    def out_of_reach(model):
        asked_for.append(model.__name__)
        raise NoConnectionError("silent")

    monkeypatch.setattr(asked, "_database", out_of_reach)
    answered = {sample.labels[0]: sample.value for sample in Asked(station.app).samples() if sample.labels}

    assert asked_for == ["OutboxMessage"]
    assert [answered[part] for part in ("outbox", "dead_letters", "relay", "beat")] == [0] * 4
    assert [answered[part] for part in ("queues", "spool", "gates")] == [1] * 3


def test_a_connection_that_complains_when_it_is_closed_harms_nothing(station, monkeypatch):
    closed = []

    class Cut:
        in_atomic_block = False

        def close(self):
            closed.append(self)
            raise RuntimeError("Already closed")

    class Connections:
        def all(self, initialized_only):
            return [Cut(), Cut()]

    monkeypatch.setattr(asked, "connections", Connections())
    monkeypatch.setattr(Asked, "_parts", lambda self: {"outbox": lambda app: []})

    assert [sample.value for sample in Asked(station.app).samples()] == [1]
    assert len(closed) == 2  # the first keeps no other open
