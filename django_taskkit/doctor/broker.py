"""Is there a broker, and does a message that it took come back?"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from kombu import Exchange, Queue

from django_taskkit.doctor.finding import Finding, error, ok, unknown
from django_taskkit.doctor.running import said_by
from django_taskkit.doctor.site import Site
from django_taskkit.exceptions import BrokerUnreachableError

TRIED_ON = ("amqp", "redis", "filesystem", "memory")
"""Brokers on which a queue costs nothing and leaves nothing."""

LIFE = 60_000
"""Milliseconds after which RabbitMQ deletes the queue, should this process be killed; it is this connection's alone."""

WRONG = "Correct broker_url and broker_transport_options; a worker that is started with them says more in its log."

REMEDY = "Start the broker, or correct broker_url; see what the broker's log says about this host and user."


def broker(site: Site) -> Iterator[Finding]:
    """``broker``: it is reached, takes a message and gives it back."""
    began = time.monotonic()
    try:
        address = _address(site.app.connection_for_read())
    except Exception as exc:
        yield error(
            "broker", f"broker_url makes no sense: {said_by(exc)}", "Correct broker_url, or install its driver."
        )
        return
    try:
        tried = site.on_broker(_round_trip)
    except BrokerUnreachableError as exc:
        yield error("broker", f"{address}: {str(exc).rstrip('.')}.", REMEDY)
        return
    except Exception as exc:  # such as a Sentinel without the name of its master: workers don't get further either
        yield error("broker", f"{address} can't be used: {said_by(exc)}", WRONG)
        return
    took = (time.monotonic() - began) * 1000
    if tried is None:
        yield ok("broker", f"{address} answers; no message was sent to try it.")
    elif isinstance(tried, Exception):
        yield unknown(
            "broker",
            f"{address} answers, but no message could be sent to try it: {said_by(tried)}",
            "Let the broker's user make a queue called taskkit.doctor.*, if it is to be tried.",
        )
    elif tried:
        yield ok("broker", f"{address} took a message and gave it back; {took:.0f} ms in all.")
    else:
        yield error(
            "broker",
            f"{address} took a message and did not give it back.",
            "See the broker's log and its memory and disk alarms; is it a cluster whose nodes don't agree?",
        )


def _address(connection: Any) -> str:
    """Return where it is, without the password, and without the stars for one if there is none."""
    shown = str(connection.as_uri())
    return shown if connection.password else shown.replace(":**@", "@").replace("//@", "//")


def _round_trip(connection: Any) -> bool | Exception | None:
    """Say whether a message came back; None: not tried; an error: not allowed to."""
    driver = connection.transport.driver_type
    if driver not in TRIED_ON:
        connection.channel()
        return None
    name, text = f"taskkit.doctor.{uuid.uuid4().hex}", uuid.uuid4().hex
    channel = connection.channel()
    queue = Queue(name, Exchange(""), name, durable=False, exclusive=True, queue_arguments={"x-expires": LIFE})
    try:
        if driver == "amqp":
            queue(channel).queue_declare()
        # Our transport for a folder drops a transient message whose queue is not there, and makes it for any other.
        mode = 2 if driver == "filesystem" else 1
        connection.Producer(channel, auto_declare=False).publish(
            text, exchange="", routing_key=name, delivery_mode=mode
        )
        return _comes_back(channel, name, text)
    except connection.channel_errors as exc:
        return exc if isinstance(exc, Exception) else None
    finally:
        with suppress(Exception):
            _delete(channel, driver, name)


def _delete(channel: Any, driver: str, name: str) -> None:
    if driver == "amqp":
        channel.queue_delete(name)
    elif driver == "redis":
        channel._purge(name)  # an empty list is no list
    else:
        channel._delete(name)


def _comes_back(channel: Any, name: str, text: str) -> bool:
    deadline = time.monotonic() + 2  # without confirms RabbitMQ may take a moment
    while time.monotonic() < deadline:
        if (message := channel.basic_get(name, no_ack=True)) is not None:
            body = getattr(message, "body", b"")
            return text in (body.decode() if isinstance(body, bytes) else str(body))
        time.sleep(0.02)
    return False
