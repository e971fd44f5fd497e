"""``taskkit import --from rabbitmq-queue``: a queue of a project's own, filled by RabbitMQ's dead-letter exchange."""

from __future__ import annotations

import json

import harness
import pytest
from django.core.management import CommandError, call_command
from kombu import Consumer, Exchange, Queue

from django_taskkit.dlq import requeue, rows
from django_taskkit.models import DeadLetter

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("broker", ["rabbitmq", "rabbitmq-quorum"], indirect=True),
]


class Project:
    """A queue of work whose rejected messages go to a queue of dead ones, which no setting names."""

    def __init__(self, broker, app):
        self.broker, self.app = broker, app
        self.work, self.dead = broker.queue_named("work"), broker.queue_named("dead")
        kind = {"x-queue-type": "quorum"} if broker.name == "rabbitmq-quorum" else {}
        dlx = Exchange(broker.queue_named("dlx"), type="fanout")
        self.queue = Queue(
            self.work,
            Exchange(self.work, type="topic"),
            routing_key=self.work,
            queue_arguments={"x-dead-letter-exchange": dlx.name, **kind},
        )
        app.conf.task_queues = [self.queue]
        with broker.connection() as connection:
            self.queue(connection.default_channel).declare()
            Queue(self.dead, dlx, queue_arguments=kind)(connection.default_channel).declare()

    def die(self, *args):
        """Send a message and reject it; returns its task id."""
        sent = self.app.send_task("shop.pay", args, queue=self.work, priority=3, headers={"tenant": "t1"})
        before = self.waiting()
        with self.broker.connection() as connection:
            bound = self.queue(connection.default_channel)
            harness.wait_until(bound.get, 30, "a message of work").reject(requeue=False)
            harness.wait_until(lambda: self.waiting() > before, 30, "it is among the dead")
        return sent.id

    def waiting(self):
        return self.broker.message_count(self.dead)


@pytest.fixture
def project(broker, producer):
    return Project(broker, producer)


def bring_in(project, *options):
    call_command("taskkit", "import", "--from", "rabbitmq-queue", project.dead, *options)


def test_all_that_is_in_it_comes_into_the_table_and_goes_back_to_its_queue_when_requeued(project, capsys):
    sent = [project.die(number) for number in range(3)]

    bring_in(project)

    assert "Imported 3 dead letters; 0 already there, 0 refused." in capsys.readouterr().out
    harness.wait_until(lambda: project.waiting() == 0, 30, "the queue is empty")
    assert set(DeadLetter.objects.values_list("task_id", flat=True)) == set(sent)
    letter = DeadLetter.objects.get(task_id=sent[0])
    assert (letter.reason, letter.queue) == ("rejected", project.work)
    assert letter.headers["tenant"] == "t1"
    assert letter.properties["priority"] == 3
    died, imported = letter.events.order_by("pk")
    assert (died.kind, imported.kind, imported.note) == ("died", "imported", f"from the queue {project.dead}")
    assert imported.by.startswith("cli:")

    assert requeue(letter).requeued == 1
    with project.broker.connection() as connection:
        message = harness.wait_until(project.queue(connection.default_channel).get, 30, "it is in its queue")
        assert message.headers["id"] == sent[0]
        message.ack()


def test_a_message_that_rabbitmq_did_not_put_there_is_kept_and_one_that_is_known_is_counted(project, capsys):
    first = project.die(1)
    bring_in(project)
    capsys.readouterr()
    with project.broker.connection() as connection, connection.Producer(auto_declare=False) as publisher:
        for task_id in (first, "by-hand"):
            publisher.publish(
                "[[1], {}, {}]",
                routing_key=project.dead,
                content_type="application/json",
                content_encoding="utf-8",
                headers={"id": task_id, "task": "shop.pay"},
            )
    harness.wait_until(lambda: project.waiting() == 2, 30, "both are there")

    bring_in(project, "--json")

    facts = json.loads(capsys.readouterr().out)
    assert facts == {"imported": 1, "already_there": 1, "refused": 0, "dry_run": False}
    letter = DeadLetter.objects.get(task_id="by-hand")
    assert letter.reason == "broker"
    assert letter.exception_message == f"It was in queue {project.dead!r}, which taskkit import was told to read."


def test_a_dry_run_takes_nothing(project, capsys):
    project.die(1)

    bring_in(project, "--dry-run")

    assert f"1 message in the queue {project.dead}." in capsys.readouterr().out
    assert project.waiting() == 1
    assert not DeadLetter.objects.exists()


def test_what_the_database_does_not_take_is_in_the_queue_afterwards(project, monkeypatch):
    for number in range(3):
        project.die(number)
    write = rows.write

    def goes_down(death, **options):
        if DeadLetter.objects.exists():
            raise rows.DatabaseDownError("it is gone")
        return write(death, **options)

    monkeypatch.setattr(rows, "write", goes_down)

    with pytest.raises(CommandError, match="it is gone"):
        bring_in(project)

    assert DeadLetter.objects.count() == 1
    harness.wait_until(lambda: project.waiting() == 2, 30, "the rest is back")
    monkeypatch.setattr(rows, "write", write)
    bring_in(project)
    assert DeadLetter.objects.count() == 3


def test_queues_that_are_missing_or_read_or_the_apps_own_are_refused(project):
    with pytest.raises(CommandError, match="the broker has no queue 'no such queue'"):
        call_command("taskkit", "import", "--from", "rabbitmq-queue", "no such queue")

    with pytest.raises(CommandError, match=f"the app knows the queue '{project.work}'.*--force"):
        call_command("taskkit", "import", "--from", "rabbitmq-queue", project.work)
    call_command("taskkit", "import", "--from", "rabbitmq-queue", project.work, "--force")

    with project.broker.connection() as connection:
        queue = Queue(project.dead, no_declare=True)
        consumer = Consumer(connection.default_channel, [queue], callbacks=[lambda body, message: None])
        with consumer, pytest.raises(CommandError, match=f"the queue '{project.dead}' has 1 consumer,"):
            bring_in(project)
