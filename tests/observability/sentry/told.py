"""Sentry is told of each death once, by a real client whose transport keeps what it is given."""

import json
import logging
import subprocess
import sys

import pytest
import sentry_sdk
from billiard.einfo import ExceptionInfo
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery import signals as celery_signals
from celery.exceptions import Reject
from django.db import OperationalError
from django.test import override_settings
from sentry_sdk import scope
from sentry_sdk.integrations.celery import CeleryIntegration
from sentry_sdk.integrations.django import DjangoIntegration
from sentry_sdk.transport import Transport

from django_taskkit.base_tasks import BaseTaskWithRetry
from django_taskkit.dlq import recorder, requeue, rows
from django_taskkit.models import DeadLetter
from django_taskkit.observability import sentry_events
from django_taskkit.observability.sentry import TaskkitIntegration, _process
from django_taskkit.signals import DeadLettered, announce, task_dead_lettered

pytestmark = pytest.mark.django_db

SITE = {"SITE_URL": "https://shop.example/", "RELEASE": "1.4.2"}


class Kept(Transport):
    """Keeps the events that would go over the wire."""

    def __init__(self, options=None):
        super().__init__(options)
        self.events = []

    def capture_envelope(self, envelope):
        event = envelope.get_event()
        if event is not None:
            self.events.append(event)


@pytest.fixture
def start():
    """Start Sentry as a project does; the client ends with the test."""
    before = sentry_sdk.get_global_scope().client
    started = []

    def start(*integrations, own=True, **options):
        sentry_sdk.init(
            dsn="http://key@127.0.0.1:9/1",
            integrations=[*([TaskkitIntegration()] if own else []), *integrations],
            auto_enabling_integrations=False,
            **{"transport": Kept(), "traces_sample_rate": 0, **options},
        )
        started.append(sentry_sdk.get_client())
        return sentry_sdk.get_client().transport.events

    yield start
    for client in started:
        client.close()
    sentry_sdk.get_global_scope().set_client(before)


@pytest.fixture
def events(start):
    return start(CeleryIntegration(), DjangoIntegration())


@pytest.fixture
def pay(station):
    @station.app.task(name="tests.pay", bind=True, base=BaseTaskWithRetry, max_retries=2, retry_jitter=False)
    def pay(self, order, password="", until=99):
        if self.request.retries < until:
            raise ConnectionError(f"order {order}")

    return pay


def exception_of(event):
    return event["exception"]["values"][-1]


@override_settings(TASKKIT=SITE)
def test_the_last_attempt_alone_is_reported_once_with_the_link(station, pay, events):
    sent = pay.apply_async((7,), headers={"taskkit_request_id": "req"})
    station.run_all()

    letter = DeadLetter.objects.get()
    (event,) = events
    link = f"https://shop.example/admin/django_taskkit/deadletter/{letter.pk}/change/"
    assert exception_of(event)["type"] == "ConnectionError"
    assert exception_of(event)["value"] == "order 7"
    assert [frame["function"] for frame in exception_of(event)["stacktrace"]["frames"]][-1] == "pay"
    assert exception_of(event)["stacktrace"]["frames"][-1]["vars"]["order"] == "7"
    assert {key: value for key, value in event["tags"].items() if key.startswith("taskkit.")} == {
        "taskkit.task": "tests.pay",
        "taskkit.reason": "retries_exhausted",
        "taskkit.attempt": "3",
        "taskkit.lane": station.queue,
        "taskkit.release": "1.4.2",
        "taskkit.dead_letter": str(letter.pk),
        "taskkit.request_id": "req",
        "taskkit.link": link,
    }
    assert event["tags"]["celery_task_id"] == sent.id
    assert event["contexts"]["dead letter"]["link"] == link
    assert event["fingerprint"] == ["taskkit", letter.fingerprint]
    assert event["level"] == "error"
    assert event["release"] == "1.4.2"


def test_sentry_alone_would_say_it_without_reason_or_link(station, pay, start):
    events = start(CeleryIntegration(), own=False)
    pay.delay(7)
    station.run_all()

    (event,) = events
    assert "taskkit.reason" not in event["tags"]


def test_without_a_site_there_is_no_link(station, pay, events):
    pay.delay(7)
    station.run_all()

    (event,) = events
    assert "taskkit.link" not in event["tags"]
    assert "link" not in event["contexts"]["dead letter"]


def test_a_run_that_is_retried_and_succeeds_is_not_reported(station, pay, events):
    pay.delay(7, until=1)
    assert station.run_all() == 2

    assert events == []


def test_it_works_without_sentrys_own_integration(station, pay, start):
    events = start()
    pay.delay(7)
    station.run_all()

    (event,) = events
    assert exception_of(event)["stacktrace"]["frames"]
    assert event["tags"]["taskkit.reason"] == "retries_exhausted"


def test_a_plain_task_is_reported_the_same_way(station, events):
    @station.app.task(name="tests.plain")
    def plain():
        raise LookupError("no")

    plain.delay()
    station.run_next()

    (event,) = events
    assert event["tags"]["taskkit.reason"] == "exception"
    assert exception_of(event)["type"] == "LookupError"


def test_a_task_whose_failures_become_no_dead_letter_is_left_to_sentry(station, events):
    @station.app.task(name="tests.plain", dead_letter=False)
    def plain():
        raise LookupError("no")

    plain.delay()
    station.run_next()

    (event,) = events
    assert exception_of(event)["mechanism"]["type"] == "celery"
    assert "taskkit.reason" not in event["tags"]


def test_what_a_task_says_it_throws_is_not_reported(station, events):
    @station.app.task(name="tests.plain", throws=(LookupError,))
    def plain():
        raise LookupError("no")

    plain.delay()
    station.run_next()

    assert DeadLetter.objects.exists()
    assert events == []


def test_a_task_that_is_applied_eagerly_is_left_to_sentry(station, events):
    @station.app.task(name="tests.plain")
    def plain():
        raise LookupError("no")

    plain.apply()

    (event,) = events
    assert exception_of(event)["mechanism"]["type"] == "celery"


def test_while_the_database_is_down_it_is_said_at_once_and_has_the_same_id_later(
    station, events, monkeypatch, tmp_path
):
    @station.app.task(name="tests.plain")
    def plain():
        raise LookupError("no")

    def refuse(*args, **kwargs):
        raise rows.DatabaseDownError("down")

    with override_settings(TASKKIT={"SPOOL_QUEUE": "", "SPOOL_DIR": str(tmp_path)}):
        with monkeypatch.context() as down:
            down.setattr(rows, "write", refuse)
            plain.delay()
            station.run_next()
        assert not DeadLetter.objects.exists()
        recorder.database_pause.end()
        recorder.spool.drain_files(9)

    assert DeadLetter.objects.exists()
    at_once, later = events
    assert at_once["event_id"] == later["event_id"]
    assert exception_of(at_once)["stacktrace"]["frames"]
    assert later["tags"]["taskkit.reason"] == "exception"


def test_a_death_after_a_requeue_is_another_event(station, pay, events):
    pay.delay(7)
    station.run_all()
    letter = DeadLetter.objects.get()
    requeue([letter])
    station.run_all()

    assert [event["tags"].get("taskkit.requeues") for event in events] == [None, "1"]
    assert len({event["event_id"] for event in events}) == 2


def test_a_rejected_message_is_reported_though_sentry_takes_it_for_control_flow(station, events):
    @station.app.task(name="tests.reject")
    def reject():
        raise Reject("no use", requeue=False)

    reject.delay()
    station.run_next()

    (event,) = events
    assert event["tags"]["taskkit.reason"] == "rejected"


@pytest.fixture
def lost(station):
    """A message whose process ended before it could say anything."""

    @station.app.task(name="tests.lost")
    def lost(password=""):
        pass

    def die(exc):
        lost.apply_async((), {"password": "hunter2"})
        request = station.request(station.take(), hostname="w1@here")
        request.execute_using_pool(station.pool)
        if isinstance(exc, TimeLimitExceeded):
            request.on_timeout(False, exc.args[0])
        else:
            try:
                raise exc
            except type(exc):
                request.on_failure(ExceptionInfo())
        return request

    return die


@pytest.mark.parametrize(
    ("exc", "reason"), [(WorkerLostError("exited: SIGKILL"), "worker_lost"), (TimeLimitExceeded(5), "time_limit")]
)
def test_a_process_that_was_killed_is_reported_once_by_the_worker(station, lost, events, exc, reason):
    lost(exc)

    (event,) = events
    assert event["tags"]["taskkit.reason"] == reason
    assert exception_of(event)["type"] == type(exc).__name__
    assert event["contexts"]["dead letter"]["worker"]


def test_an_expired_message_is_a_warning(station, pay, events):
    pay.apply_async((7,), expires=-1)
    assert station.run_next().failed is None

    (event,) = events
    assert (event["level"], event["tags"]["taskkit.reason"]) == ("warning", "expired")


@pytest.mark.parametrize(("quiet", "count"), [((), 1), (("expired",), 0)])
def test_reasons_can_be_left_out(station, pay, start, quiet, count):
    events = start(TaskkitIntegration(quiet=quiet), own=False)
    pay.apply_async((7,), expires=-1)
    station.run_next()

    assert len(events) == count


def test_sentry_may_group_by_its_own_rules(station, pay, start):
    events = start(TaskkitIntegration(group=False), own=False)
    pay.delay(7)
    station.run_all()

    assert "fingerprint" not in events[0]


def test_a_line_of_celerys_log_about_another_failure_is_still_reported(station, pay, events):
    pay.delay(7)
    station.run_all()
    logging.getLogger("celery.worker.consumer").error("consumer: Cannot connect to %s", "redis://h")
    logging.getLogger("celery.worker.request").error("Hard time limit (%ss) exceeded for %s[%s]", 5, "other", "id")
    logging.getLogger("shop").error("out of stock")

    assert [event.get("logger") for event in events] == [
        None,
        "celery.worker.consumer",
        "celery.worker.request",
        "shop",
    ]


def test_the_end_of_an_idle_process_is_still_reported(station, events):
    logging.getLogger("multiprocessing").error("Process %r pid:%r exited with %r", "ForkPoolWorker-1", 1, "signal 9")

    assert len(events) == 1


def texts_of(event):
    return json.dumps(event, default=str)


@pytest.mark.parametrize("call", [((7, "hunter2"), {}), ((7,), {"password": "hunter2"})])
def test_secrets_among_the_arguments_are_hidden_everywhere(station, start, call):
    events = start(CeleryIntegration(), send_default_pii=True)

    @station.app.task(name="tests.login", base=BaseTaskWithRetry, max_retries=0)
    def login(user, password):
        copy = {"deep": [password, f"<{password}>"]}
        raise ConnectionError(f"no {password} at amqp://u:{password}@mq//", copy)

    login.apply_async(*call)
    station.run_all()

    (event,) = events
    assert "hunter2" not in texts_of(event)
    assert event["contexts"]["dead letter"]["arguments"] == {"user": 7, "password": "********"}


@pytest.mark.parametrize("queues", [True, False])
def test_the_newer_option_for_personal_data_counts_as_well(station, pay, start, queues):
    pytest.importorskip("sentry_sdk.data_collection")
    events = start(data_collection={"queues": queues})
    pay.delay(7)
    station.run_all()

    assert ("arguments" in events[0]["contexts"]["dead letter"]) is queues


def test_arguments_are_not_sent_where_personal_data_is_not(station, pay, events):
    pay.delay(7)
    station.run_all()

    assert "arguments" not in events[0]["contexts"]["dead letter"]


def test_secrets_in_other_events_of_a_task_are_hidden_too(station, start):
    events = start(CeleryIntegration(), send_default_pii=True)

    @station.app.task(name="tests.login")
    def login(user, password):
        sentry_sdk.capture_message("odd")

    login.delay("ann", "hunter2")
    station.run_all()

    (event,) = events
    assert event["extra"]["celery-job"]["args"] == ["ann", "********"]
    assert "hunter2" not in texts_of(event)


def test_nothing_of_sentry_is_loaded_unless_the_project_asks_for_it():
    code = "import sys, django_taskkit.observability.logs, django_taskkit.worker; print('sentry_sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False"


def test_a_database_that_does_not_answer_costs_the_event_only_what_it_would_have_said(events, monkeypatch):
    def refuse(*args):
        raise OperationalError

    monkeypatch.setattr(sentry_events.router, "db_for_write", refuse)
    facts = {"reason": "exception", "exception_class": "a.BError", "exception_message": "no", "attempts": 1}
    announce(
        task_dead_lettered,
        DeadLettered(task_id="x", task_name="tests.plain", dead_letter_id=1, generation=0, **facts),
    )

    (event,) = events
    assert (exception_of(event)["module"], exception_of(event)["type"]) == ("a", "BError")
    assert event["tags"]["taskkit.reason"] == "exception"


def test_what_waits_is_taken_out_before_sentry_looks_for_duplicates(events):
    assert scope.global_event_processors[0] is _process


def test_a_secret_too_short_to_be_looked_for_is_hidden_by_its_place(station, start):
    events = start(CeleryIntegration(), send_default_pii=True)

    @station.app.task(name="tests.login")
    def login(user, password):
        sentry_sdk.capture_message("odd")

    login.delay("ann", "xy")
    station.run_all()

    assert events[0]["extra"]["celery-job"]["args"] == ["ann", "********"]


def test_a_process_of_the_pool_gets_a_sender_of_its_own(start):
    events = start(transport=Kept)
    before = sentry_sdk.get_client().transport

    celery_signals.worker_process_init.send(sender=None)

    assert sentry_sdk.get_client().transport is not before
    sentry_sdk.capture_message("odd")
    assert events == []
    assert [event["message"] for event in sentry_sdk.get_client().transport.events] == ["odd"]
