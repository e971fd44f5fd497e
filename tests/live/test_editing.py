"""A letter that died of a wrong argument is edited, runs with the right one, and the rest of its chain follows."""

from __future__ import annotations

import harness
import pytest
from celery import chain

from django_taskkit.dlq import requeue
from django_taskkit.dlq.editing import edit
from django_taskkit.dlq.preflight import Color, Preflight
from django_taskkit.models import DeadLetter

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def app(producer):
    """A preflight and an edit have to know the tasks."""
    from editing_app import with_tasks

    return with_tasks(producer)


@pytest.fixture
def start(broker, start_worker, django_env):
    return lambda **options: start_worker("editing_app", broker, env=django_env, **options)


def dead(task_id):
    return DeadLetter.objects.filter(task_id=task_id, status="dead").first()


@pytest.mark.parametrize("broker", ["redis"], indirect=True)
def test_an_edited_letter_runs_and_its_chain_follows(broker, app, start, settings, tmp_path):
    settings.TASKKIT = {"EDITABLE": ["editing.*"]}
    notes = tmp_path / "notes"
    start(pool="prefork")
    steps = chain(
        app.signature("editing.pay", (str(notes), "seven")),
        app.signature("editing.thank", ("Ann",)),
    )
    last = steps.apply_async(headers={"tenant": "t1"})
    row = harness.wait_until(lambda: dead(last.parent.id), 60, "the letter is dead")
    assert not notes.exists()

    edit(row, [str(notes), 7], {}, by="ann", note="the number, not the word")
    assert requeue(row, by="ann").requeued == 1

    # Not ``last.get()``: when the first link died, Celery stored FAILURE for all behind it as well.
    harness.wait_until(lambda: app.AsyncResult(last.id).state == "SUCCESS", 60, "the last link has succeeded")
    assert notes.read_text().splitlines() == ["paid 7 EUR", "thanked Ann"]
    harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").first(), 60, "recovered")
    row.refresh_from_db()
    assert [event.kind for event in row.events.all()] == ["died", "edited", "requeued", "recovered"]
    assert row.headers["tenant"] == "t1"


@pytest.mark.parametrize("broker", ["redis", "rabbitmq", "rabbitmq-quorum", "filesystem"], indirect=True)
def test_a_preflight_knows_whether_a_worker_reads_the_queue(broker, app, start):
    row = DeadLetter(
        task_name="editing.pay",
        queue=broker.queue,
        body=b'[["x", 7], {}, {}]',
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "the-id", "task": "editing.pay"},
        properties={},
    )

    def look():
        return Preflight(app).verdict(row)

    assert look().color is Color.AMBER
    worker = start(pool="solo")
    harness.wait_until(lambda: look().color is Color.GREEN, 60, "a worker reads the queue")
    row.queue = broker.queue_named("other")
    assert look().color is not Color.GREEN
    worker.stop()


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_queue_that_the_broker_lacks_is_red(broker, app):
    row = DeadLetter(
        task_name="editing.pay",
        queue="taskkit-no-such-queue",
        body=b'[["x", 7], {}, {}]',
        content_type="application/json",
        content_encoding="utf-8",
        headers={"id": "the-id", "task": "editing.pay"},
        properties={},
    )

    assert Preflight(app).verdict(row).reasons == ("The broker has no queue 'taskkit-no-such-queue'.",)
