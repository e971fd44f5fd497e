"""RabbitMQ's own dead-letter exchange: what it takes off a queue is a dead letter, and can be requeued."""

from __future__ import annotations

import json

import harness
import intake_app
import pytest
from kombu import Exchange, Queue

from django_taskkit.dlq import intake, requeue
from django_taskkit.models import DeadLetter

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.parametrize("broker", ["rabbitmq", "rabbitmq-quorum"], indirect=True),
]


class Project:
    """Queues that die in each of RabbitMQ's ways, and the intake queue behind their dead-letter exchange."""

    def __init__(self, broker, app):
        self.broker, self.app = broker, app
        quorum = broker.name == "rabbitmq-quorum"
        self.intake = broker.queue_named("dead")
        common = {"x-dead-letter-exchange": f"{broker.queue}.dlx"}
        if quorum:
            common["x-queue-type"] = "quorum"
        ways = {"rejected": {}, "expired": {"x-message-ttl": 3000}, "maxlen": {"x-max-length": 1}}
        if quorum:  # RabbitMQ counts deliveries in these alone
            ways["delivery_limit"] = {"x-delivery-limit": 1}
        self.ways = {way: broker.queue_named(way) for way in ways}
        self.described = {
            "described": {self.ways[way]: {**common, **arguments} for way, arguments in ways.items()},
            "exchange": f"{broker.queue}.tasks",
            "kind": "topic" if quorum else "direct",
        }
        app.conf.task_queues = intake_app.queues(**self.described)

    def declare(self):
        with self.broker.connection() as connection:
            channel = connection.default_channel
            dlx = Exchange(f"{self.broker.queue}.dlx", type="fanout")
            Queue(self.intake, dlx)(channel).declare()
            for queue in self.app.conf.task_queues:
                queue(channel).declare()

    def send(self, way, **options):
        task = options.pop("task", "intake.add")
        args = () if task == "intake.reject_once" else (2, 3)
        return self.app.send_task(task, args, queue=self.ways[way], headers={"tenant": "t1"}, **options)

    def take(self, way, **how):
        with self.broker.connection() as connection:
            queue = Queue(self.ways[way], no_declare=True)(connection.default_channel)
            message = harness.wait_until(queue.get, 15, f"a message in {way}")
            message.reject(**how)


@pytest.fixture
def project(broker, producer, settings):
    project = Project(broker, producer)
    settings.TASKKIT = {"INTAKE_QUEUES": [project.intake]}
    return project


@pytest.fixture
def start(project, start_worker, django_env):
    def start(*ways):
        env = {**django_env, intake_app.QUEUES_VARIABLE: json.dumps(project.described)}
        return start_worker("intake_app", project.broker, env=env, queues=[project.ways[way] for way in ways])

    return start


def test_what_rabbitmq_declares_dead_gets_into_the_table_and_runs_when_requeued(project, start):
    project.declare()
    sent = {way: project.send(way, priority=3) for way in project.ways}
    project.take("rejected", requeue=False)
    project.send("maxlen")  # the queue holds one, and drops its oldest
    if "delivery_limit" in project.ways:
        project.take("delivery_limit", requeue=True)
        project.take("delivery_limit", requeue=True)

    def drained():
        intake.drain(project.app, 100)
        return DeadLetter.objects.count() == len(sent)

    harness.wait_until(drained, 30, "all are in the table", interval=0.3)

    for way, result in sent.items():
        letter = DeadLetter.objects.get(task_id=result.id)
        assert (letter.task_name, letter.queue) == ("intake.add", project.ways[way])
        assert letter.reason == ("broker" if way == "maxlen" else way)
        assert letter.exception_message == f"RabbitMQ dead-lettered it from queue {project.ways[way]!r}: {way}"
        # Celery itself sends to the queues of direct exchanges without their exchange.
        exchange = "" if project.described["kind"] == "direct" else project.described["exchange"]
        assert (letter.exchange, letter.routing_key) == (exchange, project.ways[way])
        assert letter.headers["tenant"] == "t1"
        assert not [name for name in letter.headers if name.startswith("x-")]
        assert letter.properties["priority"] == 3
    assert intake.drain(project.app, 100) == 0
    assert project.broker.message_count(project.intake) == 0

    start(*project.ways)
    assert requeue(DeadLetter.objects.all()).refused == ()

    for result in sent.values():
        assert result.get(timeout=60) == 5
    harness.wait_until(
        lambda: DeadLetter.objects.filter(status="recovered").count() == len(sent), 30, "all are recovered"
    )


def test_a_message_with_a_time_to_live_of_its_own_is_kept_without_it(project):
    project.declare()
    sent = project.send("rejected", expiration=0.2)

    harness.wait_until(lambda: intake.drain(project.app, 10), 15, "it expired")

    letter = DeadLetter.objects.get()
    assert (letter.reason, letter.queue) == ("expired", project.ways["rejected"])
    assert "expiration" not in letter.properties

    assert requeue(letter).requeued == 1
    with project.broker.connection() as connection:
        message = Queue(project.ways["rejected"], no_declare=True)(connection.default_channel).get()
    assert message.headers["id"] == sent.id
    assert "expiration" not in message.properties


def test_a_message_that_our_worker_rejects_is_one_row(project, start):
    """The worker records it, and RabbitMQ hands it to the intake as well."""
    if project.broker.name != "rabbitmq":
        pytest.skip("the next test shows it of quorum queues")
    project.declare()
    start("rejected")
    sent = project.send("rejected", task="intake.reject_once")

    harness.wait_until(lambda: intake.drain(project.app, 10), 60, "the broker's copy came in")

    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.reason, letter.queue) == (sent.id, "rejected", project.ways["rejected"])
    assert [event.kind for event in letter.events.all()] == ["died"]

    requeue(letter)
    harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").exists(), 60, "it recovered")


def test_a_delayed_message_goes_back_to_the_queue_that_it_died_in(project, start):
    """On quorum queues, Celery delays with queues that have a dead-letter exchange of their own."""
    if project.broker.name != "rabbitmq-quorum":
        pytest.skip("on classic queues a worker holds the delayed message")
    project.declare()
    start("rejected")
    sent = project.send("rejected", task="intake.reject_once", countdown=1)

    harness.wait_until(lambda: intake.drain(project.app, 10), 60, "the broker's copy came in")
    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.queue) == (sent.id, project.ways["rejected"])
    assert [event.kind for event in letter.events.all()] == ["died"]

    requeue(letter)
    harness.wait_until(lambda: DeadLetter.objects.filter(status="recovered").exists(), 60, "it recovered")


def test_a_queue_that_the_broker_lacks_is_named_once_and_is_not_made(project, caplog):
    assert intake.drain(project.app, 10) == 0
    assert intake.drain(project.app, 10) == 0

    assert caplog.text.count(f"names the queue {project.intake!r}, which the broker does not have") == 1
    project.declare()  # would be refused if it had been made with other arguments
    project.send("rejected")
    project.take("rejected", requeue=False)
    harness.wait_until(lambda: intake.drain(project.app, 10), 15, "it came in")
