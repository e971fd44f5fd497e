"""structlog's events bear the ids of task and web request, and runs share no context variables."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import structlog
from asgiref.sync import async_to_sync
from celery import signals
from structlog.testing import LogCapture

from django_taskkit.observability.structlog_context import add_task_context, bind_task_context, redact_secrets
from django_taskkit.request_ids import of_request

pytestmark = pytest.mark.django_db


@pytest.fixture
def entries():
    """What structlog would write."""
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, add_task_context, redact_secrets, capture])
    structlog.contextvars.clear_contextvars()
    yield capture.entries
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def bound():
    bind_task_context()
    yield
    for signal in (signals.task_prerun, signals.task_postrun):
        signal.disconnect(dispatch_uid="django_taskkit.structlog_context")


@pytest.fixture
def log():
    return structlog.get_logger()


def test_an_event_of_a_task_bears_its_ids(station, entries, log):
    @station.app.task(name="tests.talk")
    def talk():
        log.info("hello", task="mine")

    sent = talk.apply_async(headers={"taskkit_request_id": "req"})
    station.run_next()

    (event,) = entries
    ids = {key: event[key] for key in ("task_id", "request_id", "attempt", "queue")}
    assert ids == {"task_id": sent.id, "request_id": "req", "attempt": 1, "queue": station.queue}
    assert event["task"] == "mine"


def test_an_event_of_a_web_request_bears_its_id(entries, log):
    token = of_request.set("req")
    log.info("hello")
    of_request.reset(token)

    assert entries[0]["request_id"] == "req"


def test_an_event_of_neither_is_left_as_it_is(entries, log):
    log.info("hello")

    assert entries == [{"event": "hello", "log_level": "info"}]


def test_secrets_are_asterisks(entries, log):
    log.info("at redis://:hunter2@h/0", password="hunter2", call={"token": "hunter2"})

    assert entries[0] == {
        "event": "at redis://:********@h/0",
        "password": "********",
        "call": {"token": "********"},
        "log_level": "info",
    }


def test_a_context_that_cannot_be_told_costs_no_event(monkeypatch, entries, log):
    monkeypatch.setattr("django_taskkit.observability.structlog_context.facts_here", lambda: 1 / 0)
    log.info("hello")

    assert entries == [{"event": "hello", "log_level": "info"}]


def test_what_one_run_binds_is_not_in_the_lines_of_the_next(station, entries, log, bound):
    @station.app.task(name="tests.talk")
    def talk(user=None):
        if user:
            structlog.contextvars.bind_contextvars(user=user)
        log.info("hello")

    talk.delay("ann")
    talk.delay()
    station.run_all()

    assert [event.get("user") for event in entries] == ["ann", None]
    assert structlog.contextvars.get_contextvars() == {}


def test_what_was_bound_before_a_run_is_not_in_its_lines(station, entries, log, bound):
    @station.app.task(name="tests.talk")
    def talk():
        log.info("hello")

    structlog.contextvars.bind_contextvars(user="ann")
    talk.delay()
    station.run_next()

    assert "user" not in entries[0]


def test_without_binding_they_would_mix(station, entries, log):
    @station.app.task(name="tests.talk")
    def talk(user=None):
        if user:
            structlog.contextvars.bind_contextvars(user=user)
        log.info("hello")

    talk.delay("ann")
    talk.delay()
    station.run_all()

    assert [event.get("user") for event in entries] == ["ann", "ann"]


def test_coroutines_of_a_task_have_what_is_bound(station, entries, log, bound):
    @station.app.task(name="tests.talk")
    def talk():
        async def below():
            log.info("hello")

        async_to_sync(below)()

    sent = talk.delay()
    station.run_next()

    assert entries[0]["task_id"] == sent.id


def test_an_eager_task_keeps_what_its_caller_has_bound(station, entries, log, bound):
    @station.app.task(name="tests.talk")
    def talk():
        log.info("hello")

    structlog.contextvars.bind_contextvars(user="ann")
    talk.apply()
    log.info("after")

    assert [event["user"] for event in entries] == ["ann", "ann"]
    assert entries[0]["task"] == "tests.talk"


def test_threads_do_not_mix(station, entries, log, bound):
    @station.app.task(name="tests.talk", bind=True)
    def talk(self):
        structlog.contextvars.bind_contextvars(mine=self.request.id)
        log.info("hello")

    for _ in range(8):
        talk.delay()
    for _ in range(8):
        station.request(station.take()).execute_using_pool(station.pool)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(job.target, *job.args) for job in station.pool.jobs]:
            done.result(30)
    station.pool.jobs.clear()

    assert len(entries) == 8
    assert all(event["mine"] == event["task_id"] for event in entries)


def test_the_processors_need_no_structlog():
    code = "import sys; import django_taskkit.observability.structlog_context as c; c.bind_task_context(); "
    code += "print('structlog' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"
