"""Before a requeue: what would die again, what can't be told, and what looks well."""

import contextlib
import json
import socket
import threading
from datetime import datetime, timedelta, timezone

import pytest
from kombu.serialization import dumps

from django_taskkit.dlq import census
from django_taskkit.dlq import preflight as module
from django_taskkit.dlq.preflight import Color, Preflight, passing
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 21, 12, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def calls(station):
    """What the tasks of these tests were called with: nothing, ever."""
    called = []

    @station.app.task(name="shop.pay")
    def pay(order, *, note="", **more):
        called.append(order)

    @station.app.task(name="shop.bound", bind=True)
    def bound(self, order):
        called.append(order)

    @station.app.task(name="shop.loose", typing=False)
    def loose(order):
        called.append(order)

    yield called
    assert called == []


def letter(number=1, *, args=(7,), kwargs=None, headers=None, task="shop.pay", save=False, **values):
    body = json.dumps([list(args), kwargs or {}, {}]).encode()
    row = DeadLetter(
        **{
            "task_id": f"id-{number}",
            "task_name": task,
            "reason": "exception",
            "died_at": NOW,
            "queue": "shop",
            "body": body,
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "headers": {"id": f"id-{number}", "task": task, **(headers or {})},
            "properties": {},
            **values,
        }
    )
    if save:
        row.save()
    return row


@pytest.fixture
def look(station):
    """The verdict of a preflight that asks nobody."""
    return lambda row, **options: Preflight(station.app, ask=False, **options).verdict(row)


def found(verdict):
    return [(finding.color.value, finding.code) for finding in verdict.findings]


def test_what_looks_well_is_green(look):
    verdict = look(letter(kwargs={"note": "x", "gift": True}))

    assert verdict.color is Color.GREEN
    assert verdict.reasons == ()
    assert verdict.color == "green"


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"args": ()}, "The arguments don't fit the task: missing a required argument: 'order'."),
        ({"args": (1, 2)}, "The arguments don't fit the task: too many positional arguments."),
        ({"task": "shop.bound", "args": (1, 2)}, "The arguments don't fit the task: too many positional arguments."),
        ({"task": "shop.gone"}, "No task is registered under the name shop.gone."),
        ({"body": b"[[7]"}, "Its body can't be decoded."),
        ({"body": b"[7, {}, {}]"}, "It is not shaped like the message of a task."),
        ({"body": b'[[7], {}, "x"]'}, "It is not shaped like the message of a task."),
        (
            {"content_type": "application/x-yaml", "body": b"[[7], {}, {}]"},
            "Workers refuse content of type 'application/x-yaml': it is not in accept_content.",
        ),
        ({"headers": {"timelimit": "x"}}, "Workers refuse it: its header 'timelimit' makes no sense, or is missing."),
        ({"headers": {"id": None}}, "Workers refuse it: its header 'id' makes no sense, or is missing."),
        ({"status": "recovered"}, "It is recovered, and what is not dead or held is not requeued."),
        ({"status": "requeued"}, "It is requeued, and what is not dead or held is not requeued."),
        ({"body_ran": True}, "Its task had ended well, and would do its work once more."),
    ],
)
def test_what_would_die_again_or_be_refused_is_red(look, values, reason):
    verdict = look(letter(**values))

    assert (verdict.color, verdict.reasons[0]) == (Color.RED, reason)


def test_arguments_of_a_bound_task_are_those_without_the_task(look):
    assert look(letter(task="shop.bound")).color is Color.GREEN


def test_arguments_that_celery_does_not_check_may_fit_after_all(look):
    assert found(look(letter(task="shop.loose", args=()))) == [("amber", "arguments")]


def test_modules_of_tasks_are_looked_through_once_for_a_name_that_is_unknown(station, monkeypatch):
    looked = []
    monkeypatch.setattr(type(station.app.loader), "import_default_modules", lambda self: looked.append(1))
    preflight = Preflight(station.app, ask=False)

    verdicts = [preflight.verdict(letter(number, task="shop.lost")) for number in range(5)]

    assert {verdict.color for verdict in verdicts} == {Color.RED}
    assert looked == [1]


def test_models_of_pydantic_are_not_made(station, look, calls):
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel):
        number: int

    @station.app.task(name="shop.modelled", pydantic=True)
    def modelled(order: Order):
        calls.append(order)

    assert look(letter(task="shop.modelled", args=[{"number": "none"}])).color is Color.GREEN
    assert found(look(letter(task="shop.modelled", args=[]))) == [("red", "arguments")]


def test_a_held_one_may_be_requeued(look):
    assert look(letter(status="held")).color is Color.GREEN


def test_what_was_asked_for_is_not_held_against_it(look):
    assert look(letter(body_ran=True), even_if_ran=True).color is Color.GREEN
    assert look(letter(status="requeued"), force=True).color is Color.GREEN


def test_a_pickled_body_is_not_opened(look):
    content_type, encoding, body = dumps(([7], {}, {}), serializer="pickle")

    verdict = look(letter(body=body, content_type=content_type, content_encoding=encoding))

    assert found(verdict) == [("amber", "opaque")]


def test_an_expiry_that_is_past_is_told_since_the_requeue_drops_it(look):
    soon, late = (datetime.now(timezone.utc) + timedelta(hours=hours) for hours in (1, -1))

    assert found(look(letter(headers={"expires": late.isoformat()}))) == [("amber", "expired")]
    assert found(look(letter(headers={"expires": soon.isoformat()}))) == []
    assert found(look(letter(headers={"expires": "soon"}))) == []


def test_what_said_itself_that_it_can_never_succeed_is_amber(look):
    assert found(look(letter(reason="permanent"))) == [("amber", "permanent")]


def test_a_message_of_the_first_protocol_is_not_looked_into(look):
    body = json.dumps({"task": "shop.pay", "id": "id-1", "args": [], "kwargs": {}}).encode()

    assert found(look(letter(body=body, headers={"id": None, "task": None}))) == [("amber", "opaque")]


def test_the_worst_comes_first(look):
    verdict = look(letter(args=(), headers={"expires": "2020-01-01T00:00:00+00:00"}, body_ran=True))

    assert [color for color, _code in found(verdict)] == ["red", "red", "amber"]


class TestWorkers:
    """On a broker where the workers themselves have to be asked."""

    def test_it_is_told_when_none_answers(self, station, monkeypatch):
        monkeypatch.setattr(census, "ANSWER_TIMEOUT", 0.05)

        verdict = Preflight(station.app).verdict(letter())

        assert (verdict.color, verdict.reasons) == (
            Color.AMBER,
            ("No worker answered, so nobody may be there to run it.",),
        )

    def test_it_is_told_when_the_broker_is_down(self, station):
        station.app.conf.broker_url = station.app.conf.broker_write_url = "redis://127.0.0.1:1/0"

        assert found(Preflight(station.app).verdict(letter())) == [("amber", "queue")]

    def test_a_broker_that_does_not_answer_is_not_tried_for_each_queue(self, station):
        tried = []

        def close(server):
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()
                    tried.append(1)

        with socket.create_server(("127.0.0.1", 0)) as server:
            thread = threading.Thread(target=close, args=[server], daemon=True)
            thread.start()
            url = f"amqp://127.0.0.1:{server.getsockname()[1]}//"
            station.app.conf.broker_url = station.app.conf.broker_write_url = url
            asked = census.Census(station.app)

            assert asked.readers("a").value == "unknown"
            assert {asked.readers(name).value for name in "bcdef"} == {"unknown"}
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        assert 1 <= len(tried) <= 2  # and once more, as for every connection

    def test_what_they_read_and_know_is_asked_once(self, station, answering):
        asked = answering(queues=["shop", "slow"], tasks=["shop.gone [rate_limit=1/s]", "shop.pay"])
        preflight = Preflight(station.app)

        assert preflight.verdict(letter()).color is Color.GREEN
        assert preflight.verdict(letter(queue="fast")).reasons == ("No worker reads the queue 'fast' now.",)
        assert found(preflight.verdict(letter(queue=""))) == [("amber", "queue")]
        assert found(preflight.verdict(letter(task="shop.gone"))) == [("amber", "not_here")]
        assert found(preflight.verdict(letter(task="shop.lost"))) == [("red", "unregistered")]
        assert asked == ["active_queues", "registered"]

    def test_what_counts_is_the_queue_that_they_are_to_go_to(self, station, answering):
        answering(queues=["slow"])

        assert Preflight(station.app, queue="slow").verdict(letter()).color is Color.GREEN

    def test_a_broker_is_not_asked_about_any_number_of_queues(self, station, answering, monkeypatch):
        monkeypatch.setattr(census, "MOST_QUEUES", 2)
        answering(queues=["a", "b", "c"])
        asked = census.Census(station.app)

        assert [asked.readers(name).value for name in "abca"] == ["some", "some", "unknown", "some"]

    @pytest.fixture
    def answering(self, station):
        """Answer as a worker does, over the broker; returns what was asked."""
        stop, threads = threading.Event(), []

        def answering(queues, tasks=()):
            asked, ready = [], threading.Event()

            def answer(question, reply):
                def handler(state, **arguments):
                    asked.append(question)
                    return reply

                return handler

            def listen():
                with station.app.connection_for_read() as connection:
                    node = station.app.control.mailbox.Node("w1", channel=connection.channel())
                    node.handlers = {
                        "active_queues": answer("active_queues", [{"name": name} for name in queues]),
                        "registered": answer("registered", list(tasks)),
                    }
                    node.listen()
                    ready.set()
                    while not stop.is_set():
                        with contextlib.suppress(socket.timeout):
                            connection.drain_events(timeout=0.05)

            threads.append(threading.Thread(target=listen))
            threads[-1].start()
            assert ready.wait(10)
            return asked

        yield answering
        stop.set()
        for thread in threads:
            thread.join()


class TestSummary:
    def test_it_counts_by_color_and_by_reason(self, station):
        for number in range(4):
            letter(number, save=True)
        letter(8, args=(), save=True)
        letter(9, headers={"expires": "2020-01-01T00:00:00+00:00"}, save=True)

        summary = Preflight(station.app, ask=False).summary(DeadLetter.objects.all())

        assert summary.colors == {"green": 4, "amber": 1, "red": 1}
        assert list(summary.reasons.values()) == [1, 1]
        assert (summary.looked_at, summary.complete, summary.others) == (6, True, 0)

    def test_it_stops_at_a_limit_and_says_so(self, station, monkeypatch):
        monkeypatch.setattr(module, "BATCH", 2)
        for number in range(5):
            letter(number, save=True)
        preflight = Preflight(station.app, ask=False)

        assert (preflight.summary(DeadLetter.objects.all(), limit=4).looked_at) == 4
        assert not preflight.summary(DeadLetter.objects.all(), limit=4).complete
        assert preflight.summary(DeadLetter.objects.all(), limit=5).complete
        assert preflight.summary(DeadLetter.objects.all(), seconds=0).looked_at == 2

    def test_it_holds_a_bounded_number_of_rows_and_reasons(self, station, monkeypatch, django_assert_num_queries):
        monkeypatch.setattr(module, "BATCH", 2)
        monkeypatch.setattr(module, "MOST_FINDINGS", 3)
        for number in range(7):
            letter(number, task=f"shop.gone-{number}", save=True)

        with django_assert_num_queries(4):
            summary = Preflight(station.app, ask=False).summary(DeadLetter.objects.defer("body", "headers"))

        assert (len(summary.reasons), summary.others, summary.looked_at) == (3, 4, 7)

    def test_any_rows_can_be_counted(self, station):
        assert Preflight(station.app, ask=False).summary([letter(1), letter(2, args=())]).colors["red"] == 1


def test_those_that_may_succeed_are_told_from_the_others_some_at_a_time(station, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    good, bad, ran = letter(1, save=True), letter(2, args=(), save=True), letter(3, body_ran=True, save=True)

    parts = list(passing(Preflight(station.app, ask=False), [good.pk, bad.pk, ran.pk]))

    assert parts == [([good.pk], 1), ([ran.pk], 0)]
