"""Lanes on real brokers: what was asked for is there, and does what it is for."""

from __future__ import annotations

import json
import subprocess
from contextlib import suppress

import harness
import pytest
from django.core.management import CommandError, call_command
from routing_project import Project
from services import RabbitMQ, service

from django_taskkit.dlq import intake, requeue
from django_taskkit.models import DeadLetter
from django_taskkit.routing import Lane

pytestmark = pytest.mark.django_db(transaction=True)

ON_RABBITMQ = pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)


def rabbitmq(what, *columns):
    """What ``rabbitmqctl list_<what>`` says of this session's virtual host, a dict for each row."""
    vhost = service(RabbitMQ).vhost
    if vhost is None:
        harness.unavailable("rabbitmqctl can't be run here")
    command = ["rabbitmqctl", "-q", "-p", vhost, f"list_{what}", *columns, "--formatter", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.fixture
def project(broker, producer, start_worker, django_env, tmp_path):
    return Project(broker, producer, start_worker, django_env, tmp_path)


@ON_RABBITMQ
def test_quorum_queues_are_what_was_meant_before_their_own_worker_has_started(project):
    project.lay(slow=Lane(tasks=["slow.*"], delivery_limit=7), **{"of.slow": Lane(tasks=["fast.*"])})

    worker = project.start("slow")

    names = {lane: project.named(lane) for lane in ("default", "slow", "of.slow", "taskkit.dead")}
    queues = {queue["name"]: queue for queue in rabbitmq("queues", "name", "type", "durable", "arguments")}
    assert set(names.values()) <= set(queues), "the worker of one lane makes them all"
    for name in names.values():
        assert (queues[name]["type"], queues[name]["durable"]) == ("quorum", True)
    arguments = {lane: dict(_pairs(queues[names[lane]]["arguments"])) for lane in names}
    assert arguments["slow"] == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 7,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": names["taskkit.dead"],
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }
    assert arguments["default"] == arguments["slow"] | {"x-delivery-limit": 20}
    assert arguments["taskkit.dead"] == {"x-queue-type": "quorum"}

    exchange = project.named("taskkit.lanes")
    exchanges = {found["name"]: found["type"] for found in rabbitmq("exchanges", "name", "type")}
    assert exchanges[exchange] == "topic"
    bindings = rabbitmq("bindings", "source_name", "destination_name", "routing_key")
    keys = {lane: names[lane].replace(".", "-") for lane in ("default", "slow", "of.slow")}
    for lane, key in keys.items():
        assert _binding(exchange, names[lane], key) in bindings
        assert _binding("celery_delayed_delivery", exchange, f"#.{key}") in bindings

    [active] = project.app.control.inspect([f"{worker.name}@localhost"], timeout=5).active_queues().values()
    assert [(queue["name"], queue["routing_key"]) for queue in active] == [(names["slow"], keys["slow"])]
    assert (active[0]["exchange"]["name"], active[0]["exchange"]["type"]) == (exchange, "topic")
    assert active[0]["queue_arguments"] == arguments["slow"]
    assert "Failed to" not in worker.log()


@ON_RABBITMQ
def test_classic_queues_are_what_was_meant(project):
    project.lay(queue_type="classic", slow=Lane(tasks=["slow.*"]))

    project.start("slow")

    queues = {queue["name"]: queue for queue in rabbitmq("queues", "name", "type", "arguments")}
    slow, dead = queues[project.named("slow")], queues[project.named("taskkit.dead")]
    assert (slow["type"], dead["type"]) == ("classic", "classic")
    assert dict(_pairs(slow["arguments"])) == {
        "x-queue-type": "classic",
        "x-max-priority": 9,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": project.named("taskkit.dead"),
    }


@ON_RABBITMQ
def test_what_is_delayed_on_a_quorum_queue_runs_once_in_its_own_lane(project):
    """Also for a lane whose worker starts only later, and with a queue whose name ends as another's does."""
    other = Lane(tasks=["fast.*"], queue=f"of.{project.named('slow')}")
    project.lay(slow=Lane(tasks=["slow.*"]), other=other)
    worker = project.start("slow")

    project.send("fast", "early", countdown=1)
    project.send("slow", "late", countdown=3)
    project.wait_for(1)

    assert [line["name"] for line in project.noted()] == ["late"], "the other one is not for this lane"
    project.start("other")
    project.wait_for(2)
    worker.stop()
    assert [line["name"] for line in project.noted()] == ["late", "early"]
    assert {lane: project.broker.message_count(project.named(lane)) for lane in ("slow", "other")} == {
        "slow": 0,
        "other": 0,
    }


@ON_RABBITMQ
def test_what_kills_its_worker_again_and_again_ends_in_the_intake(project, settings):
    project.lay(slow=Lane(tasks=["slow.*"], delivery_limit=1))
    settings.TASKKIT = {"INTAKE_QUEUES": [project.named("taskkit.dead")]}
    poison = project.app.send_task("slow.kill_worker", (project.folder,), headers={"tenant": "t1"})

    for deaths in (1, 2):
        with suppress(AssertionError):  # it may die before it could say that it is ready
            project.start("slow")
        project.wait_for(deaths)

    harness.wait_until(lambda: intake.drain(project.app, 10), 30, "RabbitMQ gave it up", interval=0.3)
    letter = DeadLetter.objects.get()
    assert (letter.task_id, letter.reason, letter.queue) == (poison.id, "delivery_limit", project.named("slow"))
    assert letter.headers["tenant"] == "t1"
    assert requeue(letter).requeued == 1
    assert project.broker.message_count(project.named("slow")) == 1


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"], indirect=True)
def test_routes_says_who_reads_which_queue(project, settings, capsys):
    project.lay(slow=Lane(tasks=["slow.*"]), fast=Lane(tasks=["fast.*"]))
    settings.TASKKIT_LANES = project.settings["TASKKIT_LANES"]
    worker = project.start("slow")
    project.send("fast", "nobody comes")

    call_command("taskkit", "routes", "slow.work", "--live", skip_checks=True)
    assert f"{worker.name}@localhost" in capsys.readouterr().out

    with pytest.raises(CommandError, match="1 problem found"):
        call_command("taskkit", "routes", "fast.work", "slow.work", "--live", skip_checks=True)
    assert f"Nobody reads the queue {project.named('fast')!r}; 1 message waiting." in capsys.readouterr().out


def _pairs(arguments):
    """As rabbitmqctl writes a table: a list of name, type and value; a dict in later releases."""
    if isinstance(arguments, dict):
        return arguments.items()
    return [(entry[0], entry[-1]) for entry in arguments]


def _binding(source, destination, key):
    return {"source_name": source, "destination_name": destination, "routing_key": key}
