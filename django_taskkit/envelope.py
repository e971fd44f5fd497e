"""A Celery message, kept exactly as it travelled, so that the very same message can be sent again.

The body is bytes and stays bytes: it is never unpickled, and only decoded (JSON, YAML, MessagePack) to show
it to a person. What a person reads is derived from the envelope; the envelope is never rebuilt from that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Any

from celery import Celery
from celery.app.task import Context
from django.utils.translation import gettext as _
from kombu import Message
from kombu.serialization import dumps, loads

from django_taskkit.origin import origin_of

GENERATION_HEADER = "taskkit_generation"
"""How often the message had been requeued when it was sent; absent from a message that never was."""

REQUEUED_AT_HEADER = "taskkit_requeued_at"
"""Seconds since the epoch; a worker forgets what it was told to revoke before that."""

PREVIOUS_DELAY_HEADER = "taskkit_previous_delay"
"""Whole seconds before the retry that carries it; decorrelated jitter grows from it."""

FIRST_FAILED_HEADER = "taskkit_first_failed_at"
"""Seconds since the epoch when a run of the message failed first; ``retry_for`` counts from there."""

RETRIES_BY_HEADER = "taskkit_retries_by"
"""How many of the retries each of the task's ``retry_policies`` has caused, by the name of its exception class."""

WAITS_HEADER = "taskkit_waits"
"""How often in a row a budget, a breaker or an idempotency key has made the message wait."""

WAITS_FOR_HEADER = "taskkit_waits_for"
"""What has made the message wait, in a phrase for people."""

HOME_HEADER = "taskkit_home"
"""Exchange, routing key and queue from which a retry was sent to the task's ``retry_queue``."""

HOLD_HEADER = "taskkit_hold"
"""True or False: whether the workflow of a member that dies waits for it, whatever the task and the settings say."""

RESULT_HEADER = "taskkit_result"
"""Where the worker puts what the task returns, for whom a ``ResultCache`` has sent it; see ``results.order``."""

DJANGO_TASK_HEADER = "taskkit_django_task"
"""The alias in ``TASKS`` of the backend that has a result of the message in its table."""

SENT_AT_HEADER = "taskkit_sent_at"
"""When the message was handed to the broker, as seconds since 1970 by the sender's clock."""

REQUEST_ID_HEADER = "taskkit_request_id"
"""The id of the web request that started the task, or the task that sent it; see ``request_ids``."""

NO_ID_PREFIX = "no-id-"
"""What the task id of a message without one begins with."""

_OF_RETRIES = (
    PREVIOUS_DELAY_HEADER,
    FIRST_FAILED_HEADER,
    RETRIES_BY_HEADER,
    WAITS_HEADER,
    WAITS_FOR_HEADER,
    HOME_HEADER,
)
"""What is true of the retries so far, and of none after a requeue."""

_CHANGED_BY_REQUEUE = frozenset(
    {"retries", "eta", "expires", GENERATION_HEADER, REQUEUED_AT_HEADER, SENT_AT_HEADER, *_OF_RETRIES}
)

RAW_MESSAGE = "taskkit_message"
"""The key under which a worker hands the message as received to the process that runs the task."""

SAFE_CONTENT = frozenset({"application/json", "application/x-yaml", "application/x-msgpack"})
"""Content types whose decoding can't run code."""

_TRANSPORT_PROPERTIES = frozenset(
    {
        "application_headers",
        "body_encoding",
        "content_encoding",
        "content_type",
        "delivery_info",
        "delivery_tag",
        "expiration",
        "headers",
        "x-death",
    }
)
TRANSIT_HEADERS = frozenset(
    {
        "BCC",
        "CC",
        RAW_MESSAGE,
        "compression",
        "redelivered",
        "x-death",
        "x-delivery-count",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
    }
)
"""What a message picks up on its way, and copies (CC, BCC) that a broker made of it when it was first sent."""

_CONTEXT_HEADERS = (
    "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries", "timelimit",
    "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "ignore_result", "replaced_task_nesting",
    "stamped_headers", "stamps",
)  # fmt: skip


class UndecodableError(ValueError):
    """The body can't be shown: its content type is unsafe or it is not what its content type says."""


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """Everything that is needed to send a message again."""

    body: bytes
    content_type: str
    content_encoding: str
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    exchange: str = ""
    routing_key: str = ""
    queue: str = ""
    """The queue that delivered the message; empty where it can't be told which of several it was."""

    @property
    def task_id(self) -> str:
        """Celery's id; for a message that has none, which is not Celery's, one made of the message itself."""
        return str(self.headers.get("id") or self.properties.get("correlation_id") or self._digest())

    @property
    def task_name(self) -> str:
        return str(self.headers.get("task") or "")

    @property
    def retries(self) -> int:
        return _whole_number(self.headers.get("retries"))

    @property
    def generation(self) -> int:
        return _whole_number(self.headers.get(GENERATION_HEADER))

    @classmethod
    def from_message(cls, message: Message, app: Celery, queue: str | None = None) -> Envelope:
        """Keep a message as the broker delivered it; nothing is decoded."""
        delivery = message.delivery_info or {}
        return cls.of(
            app,
            (message.body, message.content_type, message.content_encoding, message.headers, queue),
            message.properties,
            delivery,
        )

    @classmethod
    def from_context(cls, context: Context, serializer: str, app: Celery) -> Envelope:
        """Keep the message behind a running task's ``request``.

        The worker normally hands the received message over (:data:`RAW_MESSAGE`). Where something else runs
        the task, the message is put together again from its parts, as Celery would send it.
        """
        raw = getattr(context, RAW_MESSAGE, None)
        if raw is None:
            embed = {name: getattr(context, name) for name in ("callbacks", "errbacks", "chain", "chord")}
            content_type, content_encoding, body = dumps((context.args, context.kwargs, embed), serializer)
            known = {name: getattr(context, name) for name in _CONTEXT_HEADERS if hasattr(context, name)}
            raw = (body, content_type, content_encoding, {**(context.headers or {}), **known}, None)
        return cls.of(app, raw, context.properties, context.delivery_info)

    @classmethod
    def of(
        cls,
        app: Celery,
        raw: tuple[Any, str | None, str | None, Mapping[str, Any] | None, str | None],
        properties: Mapping[str, Any] | None,
        delivery: Mapping[str, Any] | None,
    ) -> Envelope:
        """Build an envelope from a body, its content type and encoding, headers and queue, and how it was delivered."""
        body, content_type, content_encoding, headers, queue_name = raw
        exchange, routing_key, queue = origin_of(app, {**(delivery or {}), "queue": queue_name})
        return cls(
            body=_as_bytes(body, content_encoding),
            content_type=content_type or "",
            content_encoding=content_encoding or "",
            headers={key: value for key, value in (headers or {}).items() if key not in TRANSIT_HEADERS},
            properties={
                key: value
                for key, value in (properties or {}).items()
                if key not in _TRANSPORT_PROPERTIES and value is not None
            },
            exchange=exchange,
            routing_key=routing_key,
            queue=queue,
        )

    def at_home(self) -> Envelope:
        """Return the message as it was sent first, if this is a retry that has gone to a queue for retries."""
        home = self.headers.get(HOME_HEADER)
        if not isinstance(home, (list, tuple)) or len(home) != 3 or not all(isinstance(part, str) for part in home):
            return self
        exchange, routing_key, queue = home
        return replace(self, exchange=exchange, routing_key=routing_key, queue=queue)

    def again(self, *, generation: int, eta: datetime | None = None) -> Envelope:
        """Return the message to send for requeue number ``generation``: the same id and body, no retries used.

        ``eta`` and ``expires`` of the first sending are dropped, since both may lie in the past by now and an
        expired message would be thrown away unseen.
        """
        return replace(self, headers=headers_again(self.headers, generation=generation, eta=eta))

    def _digest(self) -> str:
        """Return the same text for the same message, however often it is delivered or requeued."""
        headers = {key: value for key, value in self.headers.items() if key not in _CHANGED_BY_REQUEUE}
        parts = (self.content_type, self.content_encoding, _sorted(headers), _sorted(self.properties))
        digest = sha256("\n".join(parts).encode("utf-8", "backslashreplace") + self.body).hexdigest()
        return f"{NO_ID_PREFIX}{digest[:32]}"

    def payload(self) -> tuple[Any, Any, Any]:
        """Return ``(args, kwargs, embed)`` for a person to read.

        Raises:
            UndecodableError: decoding could run code (pickle), or the body is not what its content type says.
        """
        if self.content_type not in SAFE_CONTENT:
            raise UndecodableError(_("content of type %r is not decoded for display") % self.content_type)
        try:
            args, kwargs, embed = loads(self.body, self.content_type, self.content_encoding, accept=SAFE_CONTENT)
        except Exception as exc:
            raise UndecodableError(_("the body is not a task message: %s") % type(exc).__name__) from exc
        return args, kwargs, embed


def headers_again(headers: Mapping[str, Any], *, generation: int, eta: datetime | None = None) -> dict[str, Any]:
    """Return the headers of :meth:`Envelope.again`."""
    fresh = {
        "retries": 0,
        "eta": eta.isoformat() if eta else None,
        "expires": None,
        GENERATION_HEADER: generation,
        REQUEUED_AT_HEADER: time.time(),
    }
    changed = {**headers, **fresh}
    for name in _OF_RETRIES:
        changed.pop(name, None)
    return changed


def _sorted(mapping: Mapping[str, Any]) -> str:
    return repr(sorted((str(key), repr(value)) for key, value in mapping.items()))


def _as_bytes(body: Any, encoding: str | None) -> bytes:
    if isinstance(body, str):
        try:
            return body.encode(encoding or "utf-8", "surrogateescape")
        except (LookupError, UnicodeError):
            return body.encode("utf-8", "surrogatepass")
    return bytes(body or b"")


def _whole_number(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0
