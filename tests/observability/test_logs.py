"""Each record is one JSON object on one line, with the ids of its task, and without secrets."""

import asyncio
import io
import json
import logging
import logging.config
import queue
import subprocess
import sys
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from logging.handlers import QueueHandler
from pathlib import Path

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from celery.app import trace
from celery.utils.log import get_task_logger
from celery.utils.nodenames import gethostname
from django.test import override_settings

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.observability.logs import JSONFormatter, TaskContextFilter, carried
from django_taskkit.observability.logs.context import KEYS
from django_taskkit.observability.logs.redaction import text_without_secrets
from django_taskkit.request_ids import of_request

pytestmark = pytest.mark.django_db

logger = logging.getLogger("tests.logs")


Login = namedtuple("Login", "user password")


def log_exception(exc):
    try:
        raise exc
    except type(exc):
        logger.exception("failed")


class Lines:
    """A handler on the root logger, and the objects that it has written."""

    def __init__(self):
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(JSONFormatter())

    def __call__(self, **conditions):
        found = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in found if all(line.get(key) == value for key, value in conditions.items())]

    @property
    def last(self):
        return self()[-1]


@pytest.fixture
def lines():
    lines = Lines()
    root, celery = logging.getLogger(), logging.getLogger("celery")
    before = [(log, log.level) for log in (root, celery)]
    root.addHandler(lines.handler)
    for log in (root, celery):
        log.setLevel(logging.INFO)
    yield lines
    root.removeHandler(lines.handler)
    for log, level in before:
        log.setLevel(level)


def test_a_line_says_when_how_bad_who_and_what(lines):
    before = datetime.now(timezone.utc)
    logger.warning("%s of %s", 1, 2)
    after = datetime.now(timezone.utc)

    line = lines.last
    at = datetime.fromisoformat(line.pop("timestamp").replace("Z", "+00:00"))
    assert before - timedelta(milliseconds=1) <= at <= after
    assert line.pop("pid") > 0
    assert line == {"level": "WARNING", "logger": "tests.logs", "message": "1 of 2"}


def test_the_time_is_in_utc_with_microseconds_and_a_z():
    record = logging.makeLogRecord({"created": 1_790_000_000.25, "msg": "x"})

    assert json.loads(JSONFormatter().format(record))["timestamp"] == "2026-09-21T14:13:20.250000Z"


@pytest.mark.parametrize("text", ["two\nlines", "nul\x00", "bell\x07", "\u2028", "日本", "lone \ud800", "\x1b[31mred"])
def test_whatever_is_said_the_line_is_one_line_of_ascii(lines, text):
    logger.info(text)

    raw = lines.stream.getvalue()
    assert raw.isascii()
    assert raw.count("\n") == 1
    assert len(raw.splitlines()) == 1
    assert lines.last["message"] == text


def test_an_exception_has_class_message_and_traceback(lines):
    log_exception(LookupError("gone"))

    exception = lines.last["exception"]
    assert (exception["class"], exception["message"]) == ("LookupError", "gone")
    assert "test_logs.py" in exception["traceback"]
    assert exception["traceback"].endswith("LookupError: gone\n")


def test_a_long_traceback_keeps_its_first_and_last_part(lines):
    log_exception(ValueError("x" * 500_000 + "end"))

    exception = lines.last["exception"]
    assert 20_000 < len(exception["traceback"]) < 30_000
    assert exception["traceback"].startswith("Traceback")
    assert exception["traceback"].endswith("end\n")
    assert len(exception["message"]) < 10_000


def test_what_the_caller_adds_stands_in_extra(lines):
    at = datetime(2026, 1, 2, tzinfo=timezone.utc)
    logger.info(
        "x",
        extra={
            "order": 7, "rate": 0.5, "odd": float("nan"), "at": at, "path": Path("/x"), "many": {"a": [1, (2, {3})]},
            "task_id": "mine",
        },
    )  # fmt: skip

    assert lines.last["extra"] == {
        "order": 7,
        "rate": 0.5,
        "odd": "nan",
        "at": "2026-01-02T00:00:00+00:00",
        "path": "PosixPath('/x')",
        "many": {"a": [1, [2, [3]]]},
        "task_id": "mine",
    }
    assert "task_id" not in lines.last


class Broken:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


class BrokenMapping(dict):
    def items(self):
        raise RuntimeError("no")


class BrokenError(Exception):
    __str__ = __repr__ = Broken.__str__


def loop():
    nested = {}
    nested["self"] = nested
    return nested


@pytest.mark.parametrize(
    ("message", "args", "extra"),
    [
        ("%s %s", (1,), {}),
        ("%d", ("x",), {}),
        ("%(no)s", ({"a": 1},), {}),
        ("%s", (Broken(),), {}),
        (Broken(), (), {}),
        ("x", (), {"odd": Broken()}),
        ("x", (), {"odd": loop()}),
        ("x", (), {"odd": {Broken(): 1}}),
        ("x", (), {"odd": [{Broken(): 1}]}),
        ("x", (), {"odd": BrokenMapping(a=1)}),
        ("x", (), {"data": {"id": Broken(), "name": Broken()}}),
        ("x", (), {"request": Broken()}),
    ],
)
def test_what_cannot_be_formatted_is_still_a_line(message, args, extra):
    record = logger.makeRecord("tests", logging.ERROR, "file.py", 1, message, args, None, extra=extra)

    line = JSONFormatter().format(record)

    assert json.loads(line)["level"] == "ERROR"
    assert json.loads(line)["message"]
    assert json.loads(line)["message"] == "x" or not extra
    assert len(line) < 10_000


def test_a_message_whose_arguments_do_not_fit_is_kept():
    record = logger.makeRecord("tests", logging.ERROR, "file.py", 1, "%s of %s", (1,), None)

    assert json.loads(JSONFormatter().format(record))["message"] == "[its arguments don't fit: TypeError] '%s of %s'"


def test_an_exception_that_cannot_be_shown_is_still_a_line(lines):
    log_exception(BrokenError())

    assert lines.last["message"] == "failed"
    assert "can't be shown" in lines.last["exception"]["message"]


def test_settings_that_are_wrong_hide_by_the_default_names(lines):
    with override_settings(TASKKIT={"NO_SUCH": 1}):
        logger.info("x", extra={"password": "hunter2"})

    assert lines.last["extra"] == {"password": "********"}


# Which task it is about


@pytest.fixture
def talk(station):
    @station.app.task(name="tests.talk", bind=True, base=BaseTaskWithRetry, retry_backoff=1, retry_jitter=False)
    def talk(self, fail=False):
        logger.info("hello")
        if fail and not self.request.retries:
            raise ConnectionError("once")

    return talk


def test_a_line_of_a_task_bears_its_ids(station, talk, lines):
    sent = talk.apply_async(root_id="root", parent_id="parent", headers={"taskkit_request_id": "req"})
    station.run_next()

    (line,) = lines(message="hello")
    assert {key: line.get(key) for key in KEYS} == {
        "task": "tests.talk",
        "task_id": sent.id,
        "root_id": "root",
        "parent_id": "parent",
        "attempt": 1,
        "queue": station.queue,
        "lane": None,
        "request_id": "req",
        "worker": gethostname(),
    }


def test_the_lane_is_the_one_that_has_the_queue(station, talk, lines):
    talk.delay()
    with override_settings(TASKKIT_LANES={"fast": {}, "slow": {"queue": station.queue}}):
        station.run_next()

    assert lines(message="hello")[0]["lane"] == "slow"


def test_a_retry_is_the_second_attempt_of_the_same_id(station, talk, lines):
    sent = talk.apply_async((True,), headers={"taskkit_request_id": "req"})
    station.run_all()

    said = [(line["task_id"], line["attempt"], line["request_id"]) for line in lines(message="hello")]
    assert said == [(sent.id, 1, "req"), (sent.id, 2, "req")]


def test_celerys_own_lines_bear_them_too(station, talk, lines, monkeypatch):
    monkeypatch.setattr(trace.logger, "disabled", False)
    sent = talk.apply_async(headers={"taskkit_request_id": "req"})
    station.run_next()

    (line,) = [line for line in lines() if "succeeded in" in line["message"]]
    assert (line["logger"], line["task_id"], line["request_id"]) == ("celery.app.trace", sent.id, "req")
    assert line["extra"]["runtime"] >= 0
    assert set(line["extra"]) == {"runtime"}


def test_a_line_about_a_message_that_the_worker_holds_says_what_the_message_says(station, talk, lines):
    sent = talk.apply_async(headers={"taskkit_request_id": "req"}, retries=2)
    station.request(station.take(), hostname="w1@here")
    logging.getLogger("celery.worker.request").error(
        "Hard time limit (%ss) exceeded for %s[%s]", 1.5, "tests.talk", sent.id
    )

    line = lines.last
    assert (line["task"], line["task_id"], line["attempt"]) == ("tests.talk", sent.id, 3)
    assert (line["request_id"], line["worker"], line["queue"]) == ("req", "w1@here", station.queue)


def test_the_line_that_says_received_comes_before_the_worker_lists_the_message(station, talk, lines):
    sent = talk.apply_async(headers={"taskkit_request_id": "req"})
    message = station.take()

    def task_message_handler():
        req = type("Req", (), {"id": sent.id, "name": "tests.talk", "app": station.app, "hostname": "w1"})()
        req.request_dict, req.delivery_info = message.headers, message.delivery_info
        context = {"id": req.id, "name": req.name, "args": "()", "kwargs": "{}"}
        logging.getLogger("celery.worker.strategy").info(trace.LOG_RECEIVED, context, extra={"data": context})

    from celery.worker import state  # noqa: F401  (a worker has it)

    task_message_handler()

    assert lines.last["message"] == f"Task tests.talk[{sent.id}] received"
    assert (lines.last["task_id"], lines.last["request_id"]) == (sent.id, "req")


def test_a_line_that_names_a_task_nobody_knows_still_bears_its_id(lines):
    logger.info("100%% of task %s[%s] is gone", "orders.send", "some-id")

    assert (lines.last["task"], lines.last["task_id"]) == ("orders.send", "some-id")
    assert lines.last["message"] == "100% of task orders.send[some-id] is gone"


def test_a_line_of_a_web_request_bears_its_id_and_no_task(lines):
    token = of_request.set("req")
    logger.info("x")
    of_request.reset(token)

    assert lines.last["request_id"] == "req"
    assert "task_id" not in lines.last


def test_django_logs_a_response_after_the_middleware_and_the_request_says_the_id(lines, rf):
    request = rf.get("/")
    request.request_id = "req"
    logging.getLogger("django.request").error("Not Found: %s", "/", extra={"request": request, "status_code": 404})

    assert lines.last["request_id"] == "req"
    assert lines.last["extra"] == {"status_code": 404, "request": "<WSGIRequest: GET '/'>"}


def test_threads_of_a_pool_do_not_mix(station, lines):
    barrier = threading.Barrier(2, timeout=30)

    @station.app.task(name="tests.meet", bind=True)
    def meet(self):
        barrier.wait()
        logger.info("met %s", self.request.id)
        barrier.wait()

    for _ in range(2):
        meet.delay()
    messages = [station.take(), station.take()]

    def run(message):
        request = station.request(message)
        request.execute_using_pool(station.pool)

    for message in messages:
        run(message)
    jobs = [station.pool.jobs.pop() for _ in messages]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(job.target, *job.args) for job in jobs]:
            done.result(30)

    met = [line for line in lines() if line["message"].startswith("met ")]
    assert len(met) == 2
    assert all(line["message"] == f"met {line['task_id']}" for line in met)
    assert len({line["task_id"] for line in met}) == 2


def test_what_a_task_does_in_threads_and_coroutines_of_its_own_is_carried(station, lines):
    @station.app.task(name="tests.spread")
    def spread():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(logger.info, "bare").result(30)
            pool.submit(carried(logger.info), "thread").result(30)

        async def coroutine():
            logger.info("coroutine")
            await sync_to_async(logger.info, thread_sensitive=False)("below")
            await asked.delay_soon()

        async_to_sync(carried(coroutine))()

    @station.app.task(name="tests.asked")
    def asked():
        pass

    async def delay_soon():
        asked.delay()

    asked.delay_soon = delay_soon
    sent = spread.apply_async(headers={"taskkit_request_id": "req"})
    station.run_next()

    assert "task_id" not in lines(message="bare")[0]
    for message in ("thread", "coroutine", "below"):
        (line,) = lines(message=message)
        assert (line["task_id"], line["request_id"]) == (sent.id, "req")
    assert station.take().headers["taskkit_request_id"] == "req"
    assert of_request.get() == ""


@pytest.fixture
def ids(lines):
    """What is said where an id is carried to, in the order in which it is said."""
    return lambda: [(line["message"], line.get("request_id")) for line in lines()]


def carried_from_a_request(function):
    token = of_request.set("req")
    try:
        return carried(function)
    finally:
        of_request.reset(token)


def test_each_step_of_a_generator_has_the_ids_and_who_asks_for_it_has_not(ids):
    def steps():
        try:
            logger.info("got %s", (yield 1))
            yield 2
        except LookupError:
            logger.info("thrown")
            yield 3
        finally:
            logger.info("closed")

    generator = carried_from_a_request(steps)()
    assert next(generator) == 1
    logger.info("outside")
    assert generator.send("it") == 2
    assert generator.throw(LookupError()) == 3
    generator.close()

    assert ids() == [("outside", None), ("got it", "req"), ("thrown", "req"), ("closed", "req")]
    assert list(carried_from_a_request(lambda: iter("ab"))()) == ["a", "b"]


def test_a_generator_gives_what_it_returns_and_raises_what_it_raises():
    def returns():
        return (yield 1)

    def raises():
        yield 1
        raise LookupError

    def outer():
        return (yield from carried(returns)())

    generator = outer()
    next(generator)
    with pytest.raises(StopIteration) as end:
        generator.send("done")
    assert end.value.value == "done"
    with pytest.raises(LookupError):
        list(carried(raises)())


def test_each_step_of_an_asynchronous_generator_has_the_ids(ids):
    async def steps():
        try:
            await asyncio.sleep(0)
            logger.info("got %s", (yield 1))
            yield 2
        except LookupError:
            await asyncio.sleep(0)
            logger.info("thrown")
            yield 3
        finally:
            await asyncio.sleep(0)
            logger.info("closed")

    async def ask():
        generator = carried_from_a_request(steps)()
        assert await anext(generator) == 1
        logger.info("outside")
        assert await generator.asend("it") == 2
        assert await generator.athrow(LookupError()) == 3
        await generator.aclose()
        assert [step async for step in carried_from_a_request(short)()] == [1]

    async def short():
        yield 1

    asyncio.run(ask())

    assert ids() == [("outside", None), ("got it", "req"), ("thrown", "req"), ("closed", "req")]


def test_a_task_that_logs_nothing_asks_for_nothing(station, monkeypatch):
    @station.app.task(name="tests.silent", bind=True)
    def silent(self):
        pass

    monkeypatch.setattr("django_taskkit.observability.logs.context.origin_of", lambda *args: pytest.fail("asked"))
    silent.delay()
    assert station.run_next().failed == 0


# The filter


def test_the_filter_gives_any_formatter_what_it_needs(station, talk):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(task_id)s|%(attempt)s|%(request_id)s|%(message)s"))
    handler.addFilter(TaskContextFilter(missing=""))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    sent = talk.apply_async(headers={"taskkit_request_id": "req"})
    station.run_next()
    logger.info("outside")
    logger.info("given", extra={"task_id": "mine"})
    logger.removeHandler(handler)

    assert stream.getvalue().splitlines() == [f"{sent.id}|1|req|hello", "|||outside", "mine|||given"]


def test_with_the_filter_a_listener_in_another_thread_knows_the_task(station, talk, lines):
    waiting = queue.SimpleQueue()
    handler = QueueHandler(waiting)
    handler.addFilter(TaskContextFilter())
    logger.addHandler(handler)
    sent = talk.apply_async(headers={"taskkit_request_id": "req"})
    station.run_next()
    logger.removeHandler(handler)

    with ThreadPoolExecutor(1) as pool:
        line = json.loads(pool.submit(JSONFormatter().format, waiting.get(timeout=30)).result(30))
    assert (line["message"], line["task_id"], line["request_id"]) == ("hello", sent.id, "req")
    assert "extra" not in line


def test_the_filter_lets_everything_pass(monkeypatch):
    monkeypatch.setattr("django_taskkit.observability.logs.filter.facts_of", lambda record: 1 / 0)
    record = logging.makeLogRecord({"msg": "x"})

    assert TaskContextFilter().filter(record) is True
    assert record.task_id == "-"


# Secrets


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (("amqp://shop:hunter2@mq:5672//",), "amqp://shop:********@mq:5672//"),
        (("redis://:hunter2@10.0.0.1/0",), "redis://:********@10.0.0.1/0"),
        (("https://x.example/cb?token=hunter2&page=2",), "https://x.example/cb?token=********&page=2"),
        (({"user": "ann", "password": "hunter2"},), "{'user': 'ann', 'password': '********'}"),
        (([{"deep": ({"api_key": "hunter2"},)}],), "[{'deep': ({'api_key': '********'},)}]"),
        (('{"password": "hunter2", "page": 2}',), """{"password": '********', "page": 2}"""),
        (("{'credentials': {'user': 'hunter2'}, 'page': 2}",), "{'credentials': '********', 'page': 2}"),
        (("login('ann', password='hunter2')",), "login('ann', password=********)"),
        (("Authorization: Bearer hunter2.hunter2",), "Authorization: Bearer ********"),
        (('"{\\"password\\": \\"hunter2\\"}"',), None),
        (("https://x.example:8000/path?page=2",), "https://x.example:8000/path?page=2"),
        (("redis://:hunter2/ss@10.0.0.1/0",), "redis://:********@10.0.0.1/0"),
        (("amqp://u:p@hunter2@mq// or amqp://u:p#hunter2@mq//",), "amqp://u:********@mq// or amqp://u:********@mq//"),
        (("amqp://u:hunter2@a;amqp://u:hunter2@b",), "amqp://u:********@a;amqp://u:********@b"),
        (("user=ann password=hunter2 page=2",), "user=ann password=******** page=2"),
        (("login(password=hunter2, page=2)",), "login(password=********, page=2)"),
        (("note=password='hunter2' x=password=hunter2",), "note=password=******** x=password=********"),
        (("Authorization: Basic aHVudGVyMjpodW50ZXIy",), "Authorization: Basic ********"),
        (("authorization: token hunterhunter",), "authorization: token ********"),
        (("AUTHORIZATION: BEARER hunter2.hunter2",), "AUTHORIZATION: BEARER ********"),
        (("sent Token hunter2hunter2",), "sent Token ********"),
        (("token validation, basic authentication",), "token validation, basic authentication"),
        (([("Cookie", "sid=hunter2"), (b"authorization", b"hunter2"), ("page", "2")],), None),
        ((Login("ann", "hunter2"),), "Login(user='ann', password=********)"),
        (("'name': 'ann', \"n\": 5, k='v'",), "'name': 'ann', \"n\": 5, k='v'"),
    ],
)
def test_secrets_in_a_message_are_asterisks(lines, args, shown):
    # logging takes a mapping that is the only argument for the arguments themselves.
    logger.info("got %s, %s", *args, "and more")

    message = lines.last["message"]
    assert "hunter2" not in message
    if shown is not None:
        assert message == f"got {shown}, and more"


def test_secrets_in_named_tuples_and_pairs_of_extra_are_asterisks(lines):
    logger.info("x", extra={"login": Login("ann", "hunter2"), "headers": [("Cookie", "sid=hunter2"), ("Age", "2")]})

    assert lines.last["extra"] == {
        "login": {"user": "ann", "password": "********"},
        "headers": [["Cookie", "********"], ["Age", "2"]],
    }


def test_secrets_in_a_mapping_of_arguments_are_asterisks(lines):
    logger.info("%(user)s %(password)s", {"user": "ann", "password": "hunter2"})

    assert lines.last["message"] == "ann ********"


def test_secrets_in_extra_are_asterisks_at_any_depth(lines):
    logger.info("x", extra={"call": {"user": "ann", "API-Key": "hunter2"}, "url": "redis://:hunter2@h/0"})

    assert lines.last["extra"] == {
        "call": {"user": "ann", "API-Key": "********"},
        "url": "redis://:********@h/0",
    }


def test_secrets_in_a_traceback_are_asterisks(lines):
    log_exception(ConnectionError("can't reach amqp://shop:hunter2@mq// with {'password': 'hunter2'}"))

    assert "hunter2" not in lines.stream.getvalue()
    assert "amqp://shop:********@mq//" in lines.last["exception"]["message"]


@override_settings(TASKKIT={"REDACT": ["pin"]})
def test_the_projects_own_names_count(lines):
    logger.info("x", extra={"pin": 1234, "password": "shown"})

    assert lines.last["extra"] == {"pin": "********", "password": "shown"}


@pytest.fixture
def received(station, monkeypatch, lines):
    """What Celery says of a call where the project has it show the arguments."""

    @station.app.task(name="tests.login")
    def login(user, password, *rest, **options):
        pass

    station.app.finalize()  # as in a worker

    def received(args, kwargs):
        context = {"id": "x", "name": "tests.login", "args": args, "kwargs": kwargs}
        strategy = logging.getLogger("celery.worker.strategy")
        strategy.info("%(name)s %(args)s %(kwargs)s", context, extra={"data": context})
        return lines.last["message"]

    return received


def test_arguments_as_celery_shows_them_are_hidden_by_the_signature(received):
    assert received("('ann', 'hunter2', 5)", "{'token': 'x', 'page': 2}") == (
        "tests.login ('ann', '********', 5) {'token': '********', 'page': 2}"
    )


def test_arguments_that_were_shortened_are_hidden_whole(received):
    assert received("('ann', 'hunter2', 'xxx...", "{}") == "tests.login (********) {}"


def test_a_great_text_takes_no_great_time(lines):
    started = time.process_time()
    for text in ("a" * 200_000, "'" * 100_000, "x='" * 50_000, "://" * 50_000, "{" * 100_000, "'password': {" * 5_000):
        logger.info("%s", text)

    assert len(lines()) == 6
    assert time.process_time() - started < 20


@pytest.mark.parametrize("piece", ["\\", '\\"', "a=", "password=", "'a':", "://a:", "token "])
def test_a_text_that_is_twice_as_long_takes_about_twice_the_time(piece):
    names = ("password", "token")

    def seconds(length):
        text = f"' = :// {piece * length}"
        taken = []
        for _ in range(3):
            started = time.process_time()
            text_without_secrets(text, names)
            taken.append(time.process_time() - started)
        return min(taken)

    short, long = seconds(2_000), seconds(32_000)
    assert long < 16 * 6 * max(short, 0.000_1)  # by the square it would be 256 times


# As it is installed


def test_what_other_formatters_take_is_taken_and_ignored():
    options = {"format": "%(message)s", "datefmt": "%Y", "style": "{", "validate": False}
    for some in (options, {"fmt": "%(message)s"}):
        configurator = logging.config.DictConfigurator({})
        formatter = configurator.configure_formatter({"()": "django_taskkit.observability.logs.JSONFormatter", **some})
        assert json.loads(formatter.format(logging.makeLogRecord({"msg": "hello"})))["message"] == "hello"


def test_it_can_be_named_in_logging_before_any_app_is_loaded():
    code = """
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django_taskkit"],
    LOGGING={
        "version": 1,
        "formatters": {"json": {"()": "django_taskkit.observability.logs.JSONFormatter"}},
        "filters": {"task": {"()": "django_taskkit.observability.logs.TaskContextFilter", "missing": ""}},
        "handlers": {"out": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["task"]}},
        "root": {"handlers": ["out"], "level": "INFO"},
    },
)
django.setup()
import logging
logging.getLogger("x").info("hello")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert json.loads(done.stderr)["message"] == "hello"


def test_task_loggers_reach_it_as_well(station, lines):
    task_logger = get_task_logger("tests.of_a_task")

    @station.app.task(name="tests.own_logger")
    def own_logger():
        task_logger.info("hello")

    sent = own_logger.delay()
    station.run_next()

    assert lines(message="hello")[0]["task_id"] == sent.id
