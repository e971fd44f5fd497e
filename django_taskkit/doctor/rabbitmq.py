"""Are RabbitMQ's queues what the project declares, and may its tasks run for as long as they need?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from kombu import Exchange, Queue

from django_taskkit import conf
from django_taskkit.doctor.finding import Finding, error, ok, unknown
from django_taskkit.doctor.site import Site
from django_taskkit.outbox.delays import CONSUMER_TIMEOUT

VERSION = "rabbitmq-version"
ARGUMENTS = "rabbitmq-arguments"
TIMEOUT = "rabbitmq-consumer-timeout"

NOT_FOUND, DIFFERS = 404, 406


def rabbitmq(site: Site) -> Iterator[Finding]:
    """``rabbitmq-version``, ``rabbitmq-arguments``, ``rabbitmq-consumer-timeout``."""
    if site.driver != "amqp":
        return
    declared = [queue for name, queue in site.app.amqp.queues.items() if name in site.queue_names()]
    properties, problems = site.on_broker(lambda connection: _ask(connection, declared))
    yield version(properties)
    yield from arguments(problems, len(declared))
    yield consumer_timeout(site, declared)


def _ask(connection: Any, declared: list[Queue]) -> tuple[Mapping[str, Any], list[tuple[str, int, str]]]:
    properties = connection.connection.server_properties or {}
    return properties, list(_problems(connection, declared))


def version(properties: Mapping[str, Any]) -> Finding:
    product, number = properties.get("product"), str(properties.get("version") or "")
    if not number:
        return unknown(VERSION, "The broker does not say what it is.")
    return ok(VERSION, f"{product} {number}, cluster {properties.get('cluster_name') or 'without a name'}.")


def _problems(connection: Any, declared: list[Queue]) -> Iterator[tuple[str, int, str]]:
    """Declare again what is there, as a worker does when it starts; what is missing is left missing."""
    seen: set[str] = set()
    for queue in declared:
        for thing in (queue.exchange, queue):
            name = getattr(thing, "name", "")
            if (
                not name
                or getattr(thing, "no_declare", False)
                or name.startswith("amq.")
                or f"{type(thing)} {name}" in seen
            ):
                continue
            seen.add(f"{type(thing)} {name}")
            if problem := _difference(connection, thing):
                what = "exchange" if isinstance(thing, Exchange) else "queue"
                yield f"the {what} {name!r}", *problem


def _difference(connection: Any, thing: Exchange | Queue) -> tuple[int, str] | None:
    channel = connection.channel()  # the broker closes the one on which it objects
    try:
        for passive in (True, False):
            if isinstance(thing, Exchange):
                thing(channel).declare(passive=passive)
            else:
                thing(channel).queue_declare(passive=passive)
    except connection.channel_errors as exc:
        code = int(getattr(exc, "code", 0) or 0)
        return None if code == NOT_FOUND else (code, str(exc))
    finally:
        with suppress(Exception):
            channel.close()
    return None


def arguments(problems: list[tuple[str, int, str]], number: int) -> Iterator[Finding]:
    for what, code, said in problems:
        if code == DIFFERS:
            yield error(
                ARGUMENTS,
                f"RabbitMQ has {what} with other arguments than the project declares: {_gist(said)}. "
                "No worker that reads it can start.",
                "Arguments can't be changed: declare what is there, or move to a queue with a new name; or stop the "
                "workers, let it run empty, delete it, and start them again.",
            )
        else:
            yield unknown(
                ARGUMENTS,
                f"RabbitMQ does not let this user declare {what}, so what it is can't be compared: {said}",
                "Compare it in RabbitMQ's management: type, durable, x- arguments.",
            )
    if not problems:
        yield ok(ARGUMENTS, f"RabbitMQ's queues are what the project declares ({number} compared).")


def _gist(said: str) -> str:
    found = re.search(r"inequivalent arg .*", said, re.DOTALL)
    return found[0].strip() if found else said


def consumer_timeout(site: Site, declared: list[Queue]) -> Finding:
    """Compare what tasks need with what their queues declare, or else with RabbitMQ's default.

    What this server is set to, no client can read.
    """
    needed = _needed(site)
    if not needed:
        return ok(
            TIMEOUT, "No task keeps its message unacknowledged while it runs, so RabbitMQ's limit matters little."
        )
    own = {
        queue.name: milliseconds / 1000
        for queue in declared
        if isinstance(milliseconds := (queue.queue_arguments or {}).get("x-consumer-timeout"), (int, float))
    }
    for who, seconds, queue in needed:
        if queue in own and seconds >= own[queue]:
            return error(
                TIMEOUT,
                f"{who} may hold its message for {seconds:g} s, and x-consumer-timeout of the queue {queue!r} is "
                f"{own[queue]:g} s: RabbitMQ takes the message away from the worker while it runs.",
                "Declare a greater x-consumer-timeout (milliseconds), or give the task a lower time limit.",
            )
    for who, seconds, queue in needed:
        if queue not in own and seconds >= CONSUMER_TIMEOUT:
            return unknown(
                TIMEOUT,
                f"{who} may hold its message for {seconds:g} s. RabbitMQ's default allows {CONSUMER_TIMEOUT:g} s, then "
                "takes the message away; what this one allows, it tells no client.",
                "See `rabbitmqctl environment | grep consumer_timeout`, and the policies; raise it in rabbitmq.conf, "
                "or declare x-consumer-timeout on the queue (quorum queues; RabbitMQ 3.12 and later).",
            )
    who, seconds, queue = needed[0]
    limit, whose = (own[queue], f"{queue!r} allows") if queue in own else (CONSUMER_TIMEOUT, "RabbitMQ's default is")
    return ok(TIMEOUT, f"{who} holds its message for {seconds:g} s at most, and {whose} {limit:g} s.")


def _needed(site: Site) -> list[tuple[str, float, str]]:
    """Return who holds a message, for how many seconds, and of which queue, the longest first.

    Tasks without a limit are left to the checks.
    """
    found = []
    for name in site.task_names():
        task = site.app.tasks[name]
        limit = task.time_limit or site.app.conf.task_time_limit
        if task.acks_late and limit:
            found.append((f"The task {name}", float(limit), site.queue_of(name)))
    if (delay := conf.current().long_delay) is not None:
        found.append(("A task with a countdown (TASKKIT['LONG_DELAY'])", float(delay or math.inf), ""))
    return sorted(found, key=lambda holder: -holder[1])
