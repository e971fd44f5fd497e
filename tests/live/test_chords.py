"""Chords, chains and error callbacks come to an end also where Celery leaves them waiting for ever."""

from __future__ import annotations

from pathlib import Path

import harness
import pytest
from celery import chain, chord, group, signature

from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def start(broker, producer, start_worker, django_env, tmp_path):
    """Start a worker on the database of this test."""
    env = {
        **django_env,
        "DJANGO_SETTINGS_MODULE": "chords_settings",
        "TASKKIT_TEST_CALLS": str(tmp_path / "calls"),
    }
    return lambda **options: start_worker("chords_app", broker, env=env, **options)


@pytest.fixture
def task(producer):
    """Make a signature."""
    return lambda name, *args: signature(f"chords.{name}", args, app=producer)


@pytest.fixture
def calls(tmp_path):
    """What bodies and error callbacks noted so far."""
    path = tmp_path / "calls"
    return lambda: path.read_text().splitlines() if path.exists() else []


def ended(result, timeout=60):
    """The state of ``result``, once it has one for good."""
    harness.wait_until(result.ready, timeout, f"{result} has ended")
    return result.state


class TestATaskThatNoWorkerKnows:
    """Celery forgets its chord, its chain and its error callbacks."""

    pytestmark = pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)

    def test_as_a_member_of_a_chord(self, start, task, calls):
        start()
        body = task("total").on_error(task("called_with_request"))
        result = chord([task("number", 1), task("unknown")])(body)

        assert ended(result) == "FAILURE"
        assert type(result.result).__name__ == "ChordError"
        unknown = result.parent.results[1]
        assert f"Dependency {unknown.id} raised" in str(result.result)
        assert (unknown.state, type(unknown.result).__name__) == ("FAILURE", "NotRegistered")
        harness.wait_until(calls, 30, "the error callback was called")
        assert calls() == [f"called for {result.id}: ChordError"]
        letter = DeadLetter.objects.get(task_id=unknown.id)
        assert (letter.reason, letter.task_name) == ("unregistered", "chords.unknown")

    def test_as_a_step_of_a_chain(self, start, task, calls):
        start()
        errback = task("called_with_request")
        result = chain(task("number", 1), task("unknown"), task("number"), task("number")).apply_async(
            link_error=errback
        )

        assert ended(result) == "FAILURE"
        assert ended(result.parent) == "FAILURE"
        assert result.parent.parent.parent.get(timeout=10) == 1
        harness.wait_until(calls, 30, "the error callback was called")
        assert calls() == [f"called for {result.parent.parent.id}: NotRegistered"]

    def test_in_a_chain_in_a_chord(self, start, task, calls):
        start()
        header = [task("number", 1), chain(task("unknown"), task("number"))]
        result = chord(header)(task("total"))

        assert ended(result) == "FAILURE"
        assert calls() == []

    def test_in_a_group(self, start, task, calls):
        start()
        unknown = task("unknown").on_error(task("called_with_request"))
        result = group([task("number", 1), unknown]).apply_async()

        assert [ended(member) for member in result.results] == ["SUCCESS", "FAILURE"]
        harness.wait_until(calls, 30, "the error callback was called")
        assert calls() == [f"called for {result.results[1].id}: NotRegistered"]

    def test_with_an_error_callback_that_is_sent_as_a_task(self, start, task, calls):
        start()
        result = task("unknown").apply_async(link_error=[task("sent_the_id"), task("unknown_too")])

        assert ended(result) == "FAILURE"
        harness.wait_until(calls, 30, "the error callback ran")
        assert calls() == [f"sent for {result.id}"]
        harness.wait_until(DeadLetter.objects.filter(task_name="chords.unknown_too").exists, 30, "the other is dead")

    def test_the_worker_goes_on(self, start, task):
        worker = start()
        chord([task("number", 1), task("unknown")])(task("total"))

        assert task("number", 5).apply_async().get(timeout=60) == 5
        assert worker.alive


class TestResultsInTheDatabase:
    """django-celery-results takes a member that is reported twice for two members."""

    pytestmark = pytest.mark.parametrize("broker", ["redis"], indirect=True)

    @pytest.fixture
    def producer(self, broker, tables_of_results, producer):
        broker.settings["result_backend"] = "django-db"
        producer.conf.result_backend = "django-db"
        return producer

    def test_a_member_that_exceeds_its_hard_limit_fails_the_body_once(self, start, task, calls, tmp_path):
        start(concurrency=2)
        body = task("total").on_error(task("called_with_request"))
        result = chord([task("endless"), task("after", str(tmp_path / "go"))])(body)
        killed, other = result.parent.results
        assert ended(killed) == "FAILURE"
        assert result.state == "PENDING"

        Path(tmp_path, "go").touch()

        assert ended(result) == "FAILURE"
        assert f"Dependency {killed.id} raised TimeLimitExceeded" in str(result.result)
        assert other.state == "SUCCESS"
        harness.wait_until(calls, 30, "the error callback was called")
        assert calls() == [f"called for {result.id}: ChordError"]

    def test_two_members_that_exceed_their_hard_limit_fail_the_body_once(self, start, task, calls):
        start(concurrency=2)
        body = task("total").on_error(task("called_with_request"))
        result = chord([task("endless"), task("endless"), task("number", 1)])(body)

        assert ended(result) == "FAILURE"
        harness.wait_until(calls, 30, "the error callback was called")
        assert task("number", 5).apply_async().get(timeout=60) == 5
        assert calls() == [f"called for {result.id}: ChordError"]

    def test_members_that_are_delivered_twice_start_the_body_once(self, broker, start, task, producer, calls):
        result = chord([task("number", 1), task("number", 2), task("number", 3)])(task("total"))
        for body, headers, properties in taken(broker, 3):
            for _twice in range(2):
                broker.publish(body, headers=headers, **properties)

        start(concurrency=2)

        assert result.get(timeout=60) == 6
        assert task("number", 5).apply_async().get(timeout=60) == 5
        harness.wait_until(lambda: broker.message_count() == 0, 10, "the queue is empty")
        assert calls() == ["total 6"]

    def test_a_member_that_no_worker_knows_fails_the_body(self, start, task, calls):
        start()
        result = chord([task("unknown"), task("number", 1)])(task("total"))

        assert ended(result) == "FAILURE"
        assert f"Dependency {result.parent.results[0].id} raised" in str(result.result)


def taken(broker, count):
    """The first ``count`` messages of the queue, as they travel."""
    messages = []
    with broker.connection() as connection:
        queue = broker.app().amqp.queues[broker.queue](connection.default_channel)
        for _ in range(count):
            message = queue.get()
            message.ack()
            names = ("correlation_id", "reply_to", "priority", "delivery_mode")
            properties = {name: message.properties[name] for name in names if name in message.properties}
            messages.append((message.body, message.headers, properties))
    return messages
