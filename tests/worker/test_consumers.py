"""Messages that never become a task are dead letters too, and harm no worker."""

import bz2
import json
import uuid

import pytest
from celery import chain, chord, group, signals
from celery.app import trace
from celery.backends.cache import CacheBackend
from celery.fixups.django import DjangoWorkerFixup
from celery.worker import state as worker_state
from celery.worker.consumer import Consumer
from kombu import Exchange, Queue

from django_taskkit.dlq import discard
from django_taskkit.models import DeadLetter, DeadLetterEvent
from django_taskkit.worker import this_consumer

pytestmark = pytest.mark.django_db


class Desk:
    """A worker that is built but not started, and the part of its loop that reads one message."""

    def __init__(self, app, names, **options):
        self.app = app
        self.worker = app.WorkController(pool="solo", hostname="worker@here", queues=names, **options)
        self.consumer = self.worker.consumer
        self.connection = app.connection_for_read()
        self.consumer.task_consumer = self.tasks = app.amqp.TaskConsumer(
            self.connection, on_decode_error=self._on_decode_error
        )
        self.consumer.update_strategies()
        self.handle = self.consumer.create_task_handler()
        self.tasks.on_message = self._on_message
        self.message = None
        self.rows_at_end = []

    def _on_message(self, message):
        self.watch(message)
        self.handle(message)

    def _on_decode_error(self, message, exc):
        self.watch(message)
        self.consumer.on_decode_error(message, exc)

    def watch(self, message):
        """Note how many rows there are when ``message`` is acknowledged or rejected."""
        self.message = message
        for name in ("ack", "reject"):
            setattr(message, name, self._noting(getattr(message, name)))

    def _noting(self, method):
        def noted(*args, **kwargs):
            self.rows_at_end.append(DeadLetter.objects.count())
            return method(*args, **kwargs)

        return noted

    def read(self):
        """Read one message and do all that comes of it."""
        if not self.tasks._active_tags:
            self.tasks.consume()
        self.connection.drain_events(timeout=1)
        self.consumer.perform_pending_operations()

    def waiting(self, queue):
        return self.tasks.channel._size(queue)

    def unacknowledged(self):
        qos = self.tasks.channel.qos
        return set(qos._delivered) - qos._dirty

    def close(self):
        self.tasks.cancel()
        self.connection.release()
        trace.reset_worker_optimizations(self.app)


@pytest.fixture
def desk(station, monkeypatch):
    # It closes the connection that the test's transaction is on.
    monkeypatch.setattr(DjangoWorkerFixup, "install", lambda self: None)
    desks = []

    def make(**options):
        made = Desk(station.app, options.pop("queues", station.queue), **options)
        desks.append(made)
        return made

    yield make
    for made in desks:
        made.close()


@pytest.fixture
def known(station):
    """A task that the worker knows, and the ids that it ran under."""
    ran = []

    @station.app.task(name="known", bind=True)
    def run(self, *args):
        ran.append(self.request.id)

    run.ran = ran
    return run


def publish(station, body=b"[[], {}, {}]", content_type="application/json", headers=None, name="known", **options):
    """Send something that may not be a message of Celery's; returns its id."""
    task_id = str(uuid.uuid4())
    if headers is None:
        headers = {"id": task_id, "task": name, "lang": "py"}
    encoding = options.pop("content_encoding", "utf-8")
    with station.app.producer_pool.acquire() as producer:
        producer.publish(
            body,
            routing_key=station.queue,
            exchange="",
            content_type=content_type,
            content_encoding=encoding,
            headers=headers,
            **options,
        )
    return task_id


def assert_dead(desk, reason, rows=1):
    """Assert that the message is one row, was written before its end, and that the worker goes on."""
    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.status) == (reason, "dead")
    assert DeadLetterEvent.objects.count() == 1
    assert desk.rows_at_end == [rows]
    assert not desk.unacknowledged()
    assert not worker_state.requests
    return letter


@pytest.fixture
def goes_on(station, known, desk):
    """Read one bad message, then a good one."""

    def read():
        reader = desk()
        reader.read()
        dead_ends = list(reader.rows_at_end)
        reader.rows_at_end.clear()
        good = known.delay()
        reader.read()
        assert known.ran == [good.id]
        reader.rows_at_end[:] = dead_ends
        return reader

    return read


class TestWhatIsNoTask:
    def test_a_body_that_is_cut_off(self, station, goes_on):
        task_id = publish(station, b'[["secret', headers=None)

        letter = assert_dead(goes_on(), "undecodable")

        assert (letter.task_id, letter.task_name, bytes(letter.body)) == (task_id, "known", b'[["secret')
        assert (letter.queue, letter.worker) == (station.queue, "worker@here")
        assert letter.exception_class.endswith("DecodeError")

    def test_bytes_that_are_no_text(self, station, goes_on):
        publish(station, b"\xff\xfe\x00", content_encoding="utf-8", compression=None)

        letter = assert_dead(goes_on(), "undecodable")

        assert bytes(letter.body) == b"\xff\xfe\x00"

    @pytest.mark.parametrize("compression", ["application/x-bz2", "application/x-gzip", "application/x-lzma"])
    def test_a_body_whose_compression_is_broken(self, station, goes_on, compression):
        """bz2 says OSError, which is what a lost connection says as well."""
        broken = bz2.compress(b"[[], {}, {}]")[:-4] + b"oops"
        task_id = str(uuid.uuid4())

        publish(station, broken, headers={"id": task_id, "task": "known", "compression": compression})

        assert_dead(goes_on(), "undecodable")

    def test_a_content_type_that_is_refused(self, station, goes_on):
        publish(station, b"- 1", content_type="application/x-yaml")

        letter = assert_dead(goes_on(), "refused_content")

        assert letter.content_type == "application/x-yaml"

    def test_a_task_that_nobody_knows(self, station, goes_on):
        task_id = publish(station, name="a.new.task")

        letter = assert_dead(goes_on(), "unregistered")

        assert (letter.task_id, letter.task_name) == (task_id, "a.new.task")
        assert letter.exception_class.endswith("NotRegistered")
        assert station.app.AsyncResult(task_id).state == "FAILURE"

    def test_a_task_of_the_first_protocol_that_nobody_knows(self, station, goes_on):
        body = {"id": "old-id", "task": "an.old.task", "args": [], "kwargs": {}}
        publish(station, json.dumps(body).encode(), headers={})

        letter = assert_dead(goes_on(), "unregistered")

        assert letter.task_name == "an.old.task"

    @pytest.mark.parametrize("body", [b'{"hello": 1}', b"42", b"null", b'"text"', b"[]", b"[1, 2]"])
    @pytest.mark.parametrize("headers", [{}, {"other": "header"}])
    def test_a_message_that_names_no_task(self, station, goes_on, body, headers):
        publish(station, body, headers=headers)

        letter = assert_dead(goes_on(), "invalid")

        assert bytes(letter.body) == body
        assert letter.task_id

    @pytest.mark.parametrize(
        "body",
        [
            b"42",
            b"null",
            b'"text"',
            b"[]",
            b"[[]]",
            b"[[], {}, {}, {}]",
            b'{"a": 1}',
            b"[[], [1], {}]",
            b"[[], null, {}]",
            b"[[], {}, 7]",
            b'{"args": [], "kwargs": [1]}',
            b'{"args": [], "kwargs": null}',
        ],
    )
    def test_a_body_of_the_wrong_shape(self, station, goes_on, body):
        publish(station, body)

        letter = assert_dead(goes_on(), "invalid")

        assert bytes(letter.body) == body
        assert letter.task_name == "known"

    @pytest.mark.parametrize(
        "changes",
        [
            {"id": None},
            {"id": ["a list"]},
            {"id": {"a": "dict"}},
            {"task": ["a list"]},
            {"task": {"a": "dict"}},
            {"task": None},
            {"eta": "soon"},
            {"eta": 7},
            {"eta": ["x"]},
            {"eta": "9999-12-31T23:59:59+00:00"},
            {"expires": "soon"},
            {"expires": {}},
            {"timelimit": 7},
            {"timelimit": "abc"},
            {"retries": "many"},
            {"shadow": ["x"]},
            {"stamped_headers": 7},
            {"taskkit_requeued_at": "yesterday"},
            {"taskkit_generation": "first"},
        ],
    )
    def test_a_header_of_the_wrong_kind_never_stops_the_worker(self, station, known, desk, changes):
        reader = desk()
        headers = {"id": str(uuid.uuid4()), "task": "known", "lang": "py", **changes}
        if "taskkit_requeued_at" in changes:
            worker_state.revoked.add(headers["id"])
        publish(station, headers=headers)

        reader.read()
        good = known.delay()
        reader.read()

        assert good.id in known.ran
        assert not reader.unacknowledged()
        assert DeadLetter.objects.exists() or len(known.ran) == 2

    def test_a_message_without_an_id_gets_one_of_its_own(self, station, goes_on):
        publish(station, headers={"task": "known", "lang": "py"})

        letter = assert_dead(goes_on(), "invalid")

        assert letter.task_id.startswith("no-id-")

    def test_two_of_them_are_two_rows(self, station, desk):
        publish(station, b'{"a": 1}', headers={})
        publish(station, b'{"a": 2}', headers={})
        reader = desk()

        reader.read()
        reader.read()

        assert DeadLetter.objects.count() == 2

    def test_the_same_once_more_is_the_same_row(self, station, desk):
        task_id = publish(station, name="a.new.task")
        publish(station, headers={"id": task_id, "task": "a.new.task", "lang": "py"})
        reader = desk()

        reader.read()
        reader.read()

        assert DeadLetter.objects.get().task_id == task_id


class TestTheWorkflowOfATaskThatNobodyKnows:
    def test_is_told(self, station, desk):
        heard = []

        @station.app.task
        def errback(request, exc, traceback):
            heard.append(request.id)

        @station.app.task
        def tail(value):
            return value

        unknown = station.app.signature("a.new.task", args=(1,))
        result = chain(unknown, tail.s()).apply_async(link_error=errback.s())
        reader = desk()
        reader.read()
        while reader.waiting(station.queue):
            reader.read()

        assert result.state == "FAILURE"
        assert result.parent.state == "FAILURE"
        assert result.parent.id in heard

    def test_a_chord_counts_it(self, station, desk, monkeypatch):
        counted = []
        monkeypatch.setattr(
            type(station.app.backend),
            "on_chord_part_return",
            lambda self, request, state, result, **kwargs: counted.append((request.id, state)),
        )

        @station.app.task
        def total(values):
            return values

        unknown = station.app.signature("a.new.task")
        chord([unknown.clone(), unknown.clone()])(total.s())
        reader = desk()
        reader.read()

        assert counted == [(DeadLetter.objects.get().task_id, "FAILURE")]

    def test_with_the_result_backend_down_the_worker_goes_on(self, station, goes_on, monkeypatch):
        def down(self, *args, **kwargs):
            raise ConnectionError("the result backend is down")

        task_id = publish(station, name="a.new.task")
        monkeypatch.setattr(CacheBackend, "mark_as_failure", down)
        letter = assert_dead(goes_on(), "unregistered")

        assert letter.task_id == task_id


class TestWhoElseHasAHandInIt:
    def test_celerys_signals_are_sent_as_before(self, station, desk):
        sent = []

        def unknown(name, **kwargs):
            sent.append((name, DeadLetter.objects.count()))

        def rejected(message, **kwargs):
            sent.append(("rejected", DeadLetter.objects.count()))

        signals.task_unknown.connect(unknown)
        signals.task_rejected.connect(rejected)
        publish(station, name="a.new.task")
        publish(station, b'{"a": 1}', headers={})
        reader = desk()
        reader.read()
        reader.read()
        signals.task_unknown.disconnect(unknown)
        signals.task_rejected.disconnect(rejected)

        assert sent == [("a.new.task", 1), ("rejected", 2)]

    def test_a_projects_own_consumer_still_decides(self, station, known, desk):
        seen = []

        class Own(Consumer):
            def on_unknown_task(self, body, message, exc):
                seen.append(DeadLetter.objects.count())
                super().on_unknown_task(body, message, exc)

        station.app.conf.worker_consumer = f"{__name__}:OwnConsumer"
        globals()["OwnConsumer"] = Own
        publish(station, name="a.new.task")
        reader = desk()
        reader.read()

        assert isinstance(reader.consumer, Own)
        assert seen == [1]
        assert_dead(reader, "unregistered")

    def test_opt_in_leaves_the_worker_protected(self, station, settings, goes_on):
        settings.TASKKIT = {"CAPTURE": "opt_in"}
        publish(station, b"42")

        assert_dead(goes_on(), "invalid")


class TestWhatIsSomebodyElsesTrouble:
    def test_an_error_after_the_task_was_taken_is_not_swallowed(self, station, known, desk):
        reader = desk()

        def broken(request):
            raise RuntimeError("the pool is closed")

        reader.consumer.on_task_request = broken
        reader.consumer.update_strategies()
        reader.handle = reader.consumer.create_task_handler()
        known.delay()

        with pytest.raises(RuntimeError, match="the pool is closed"):
            reader.read()

        assert not DeadLetter.objects.exists()
        assert len(reader.unacknowledged()) == 1

    @pytest.mark.parametrize("exc", [ConnectionResetError("gone"), MemoryError()])
    def test_a_lost_connection_is_not_swallowed(self, station, known, desk, exc):
        reader = desk()

        def lost(request):
            raise exc

        reader.consumer.on_task_request = lost
        reader.consumer.update_strategies()
        reader.handle = reader.consumer.create_task_handler()
        known.delay()

        with pytest.raises(type(exc)):
            reader.read()

        assert not DeadLetter.objects.exists()

    def test_a_bad_message_with_the_id_of_a_running_task_stops_nobody(self, station, known, desk):
        reader = desk()
        running = station.request(station_message(station, known))
        publish(station, b"42", headers={"id": running.id, "task": "known", "lang": "py"})

        reader.read()

        assert DeadLetter.objects.get().reason == "invalid"
        assert running.id in worker_state.requests


def station_message(station, task):
    task.delay()
    return station.take()


class TestTheQueue:
    @pytest.fixture
    def two_queues(self, station):
        """Two queues that get each message of one exchange, so that its routing key doesn't name the queue."""
        news = Exchange("news", type="topic")
        station.app.conf.task_queues = [
            Queue("mail", news, routing_key="news.#"),
            Queue("paper", news, routing_key="news.*"),
        ]
        return station.app

    def publish(self, app, **headers):
        with app.producer_pool.acquire() as producer:
            producer.publish(
                {"a": 1},
                serializer="json",
                exchange="news",
                routing_key="news.today",
                declare=list(app.conf.task_queues),
                headers=headers,
            )

    def test_is_empty_where_the_broker_does_not_say_which_of_two_it_was(self, two_queues, desk):
        """kombu's virtual transports deliver without the consumer's tag."""
        self.publish(two_queues)
        reader = desk(queues=None)

        reader.read()

        letter = DeadLetter.objects.get()
        assert (letter.exchange, letter.routing_key, letter.queue) == ("news", "news.today", "")

    @pytest.mark.parametrize("name", ["mail", "paper"])
    def test_is_known_by_the_consumers_tag(self, two_queues, desk, name):
        """As RabbitMQ delivers it."""
        reader = desk(queues=None)
        reader.tasks.consume()
        self.publish(two_queues)

        seen = []
        reader.tasks.on_message = seen.append
        reader.connection.drain_events(timeout=1)
        seen[0].delivery_info["consumer_tag"] = reader.tasks._active_tags[name]
        reader._on_message(seen[0])

        assert DeadLetter.objects.get().queue == name

    def test_a_worker_that_is_gone_is_not_kept(self, station, desk):
        reader = desk()
        assert this_consumer._consumer() is reader.consumer


class TestAnUnregisteredTaskThatIsHeld:
    @pytest.fixture
    def result(self, station, desk, known):
        """The result of one in a group, after a worker has read it."""
        unknown = station.app.signature("unknown", link_error=[known.s()]).set(headers={"taskkit_hold": True})
        result = group([unknown]).apply_async().results[0]
        desk().read()
        return result

    def test_is_a_row_and_its_workflow_waits(self, result, station, known):
        letter = DeadLetter.objects.get()

        assert (letter.status, letter.reason) == ("held", "unregistered")
        assert (result.state, result.result["exc_type"]) == ("HELD", "NotRegistered")
        assert station.run_next() is None
        assert known.ran == []

    def test_fails_when_it_is_discarded(self, result, station, known):
        assert discard(DeadLetter.objects.get(), app=station.app).discarded == 1
        station.run_all()

        assert (result.state, type(result.result).__name__) == ("FAILURE", "NotRegistered")
        assert len(known.ran) == 1
