"""What lanes are for, measured on real brokers: who is begun first, and who waits for whom."""

from __future__ import annotations

import pytest
from routing_project import Project

from django_taskkit.routing import Lane, by_priority

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project(broker, producer, start_worker, django_env, tmp_path):
    return Project(broker, producer, start_worker, django_env, tmp_path)


WAYS = {
    "a queue for each, Redis": ("redis", {}, ("low", "default", "high", "critical")),
    "one queue, Redis": ("redis", {"queue": "work"}, ("work",)),
    "one queue, RabbitMQ": ("rabbitmq", {"queue": "work"}, ("work",)),
}


@pytest.mark.parametrize(("broker", "one_queue", "read"), WAYS.values(), ids=WAYS, indirect=["broker"])
def test_what_is_more_urgent_is_begun_first(project, one_queue, read):
    if one_queue:
        one_queue = {"queue": project.named("work")}
    project.lay(
        queue_type="classic", **by_priority(critical=["critical.*"], high=["high.*"], low=["low.*"], **one_queue)
    )
    order = ["low", "ordinary", "high", "critical"]
    with project.broker.connection() as connection:  # RabbitMQ drops what comes before its queue is there
        for queue in project.app.amqp.queues.values():
            queue(connection.default_channel).declare()
    for name in order * 3:
        project.send(name, name)

    worker = project.start(*read)

    [active] = project.app.control.inspect([f"{worker.name}@localhost"], timeout=5).active_queues().values()
    assert sorted(queue["name"] for queue in active) == sorted(map(project.named, read))
    began = [line["name"] for line in project.wait_for(12)]
    assert began == [name for name in reversed(order) for _ in range(3)]


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_a_slow_lane_does_not_delay_a_fast_one(project):
    """The same tasks at the same time with as many threads: once all in one lane, once in two."""
    project.lay(slow=Lane(tasks=["slow.*"]), fast=Lane(tasks=["fast.*"]), both=Lane(tasks=["both.*"]))
    project.start("both", pool="threads", concurrency=2)
    project.start("slow", pool="threads", concurrency=1)
    project.start("fast", pool="threads", concurrency=1)

    for _ in range(8):
        project.send("both", "slow shared", 0.5)
        project.send("slow", "slow", 0.5)
    for _ in range(5):
        project.send("both", "fast shared")
        project.send("fast", "fast")
    project.wait_for(26)

    waited = {name: max(line["waited"] for line in project.noted(name=name)) for name in ("fast", "fast shared")}
    ratio = waited["fast shared"] / waited["fast"]
    print(
        f"the fast waited {waited['fast shared']:.2f} s behind the slow, {waited['fast']:.3f} s in a lane: {ratio:.0f}"
    )
    assert ratio > 3
