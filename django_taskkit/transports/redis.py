"""kombu's Redis transport, without its loss: a message is taken and recorded as unacknowledged in one step.

kombu pops a message with BRPOP and records it in ``unacked`` with a second command. A worker that is killed, or loses
its connection, in between takes the message with it. Here a script does both, so that a message is always in exactly
one place, whole: in its queue, or in ``unacked``, from where the visibility timeout brings it back.

    broker_url = "redis://localhost:6379/0"
    broker_transport = "django_taskkit.transports.redis:Transport"

Keys, options and message format are kombu's, for the URLs ``redis://``, ``rediss://``, ``sentinel://`` and
``socket://``: stock and atomic workers and producers may share a broker. A script cannot wait, so an idle consumer
waits on its queues' *bells*, which this transport's producers ring (see `redis_scripts`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable
from queue import Empty
from time import monotonic, time
from typing import Any
from uuid import uuid4

from django.core.exceptions import ImproperlyConfigured

try:
    from redis.exceptions import NoScriptError
except ImportError as exc:
    raise ImproperlyConfigured(
        "django_taskkit.transports.redis needs redis-py, which is not installed: pip install django-taskkit[redis]"
    ) from exc

from kombu.transport import redis
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from django_taskkit.transports.redis_address import address, has_sentinels, keep_transport, parse_address
from django_taskkit.transports.redis_qos import UNREADABLE, QoS, Recorded
from django_taskkit.transports.redis_scripts import ALL, CLAIM, MOVE, ONLY_RING, PUT

logger = logging.getLogger(__name__)

BELL = "bell"  #: ends the key of a queue's bell, where kombu's keys have a priority
BELL_LIFE = 10_000  #: milliseconds a ring is kept for a consumer that looked just before and waits just after
BROKEN = ".broken"  #: ends the key of the list that keeps what cannot be read


class AtomicFetch:
    """What both channels do differently from kombu's: send and ring, claim, wait, and set aside."""

    QoS = QoS
    brpop_timeout: float = 1  # kombu 5.5 has it as the default of an argument

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._without_acks: set[str] = set()
        #: Queues, which of them are recorded, and tag of the claim under way; None while waiting.
        self._claimed: tuple[list[str], set[str], str] | None = None
        self._found_nothing = False
        self._restore_at = 0.0
        super().__init__(*args, **kwargs)

    @functools.cached_property
    def _scripts(self: Any) -> dict[str, Any]:
        client = self._create_client()
        return {text: client.register_script(text) for text in ALL}

    def _run(self: Any, text: str, keys: Iterable[str], args: Iterable[Any], client: Any) -> Any:
        """Run a script. kombu's client puts the prefix before the first key; the others need it here."""
        first, *others = keys
        return self._scripts[text](keys=[first, *map(self._prefixed, others)], args=list(args), client=client)

    def _prefixed(self: Any, key: str) -> str:
        return f"{self.global_keyprefix}{key}"

    def _bell(self: Any, queue: str) -> str:
        return f"{queue}{self.sep}{BELL}"

    def _put(self: Any, queue: str, message: dict[str, Any], **kwargs: Any) -> None:
        batch, bell = kwargs.get("_publish_batch"), self._bell(queue)
        if batch is None and queue not in getattr(self, "_expires", ()):
            key = self._q_for_pri(queue, self._get_message_priority(message))
            with self.conn_or_acquire() as client:
                self._run(PUT, [key, bell], [dumps(message), BELL_LIFE], client)
            return
        super()._put(queue, message, **kwargs)  # type: ignore[misc]
        if batch is not None:
            batch.bells.add(self._prefixed(bell))
        else:
            with self.conn_or_acquire() as client:
                self._run(ONLY_RING, [bell], [BELL_LIFE], client)

    def create_publish_batch(self: Any, max_size: int) -> Any:
        """kombu 5.7's batch of messages, which rings once for each queue after all of them."""
        batch = super().create_publish_batch(max_size)  # type: ignore[misc]
        batch.bells, flush = set(), batch.flush

        def ring_and_flush() -> None:
            for bell in batch.bells:
                batch.pipeline.eval(ONLY_RING, 1, bell, BELL_LIFE)
            batch.bells.clear()
            flush()

        batch.flush = ring_and_flush
        return batch

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **kwargs: Any) -> Any:
        (self._without_acks.add if no_ack else self._without_acks.discard)(queue)
        return super().basic_consume(queue, no_ack, *args, **kwargs)  # type: ignore[misc]

    def basic_get(self: Any, queue: str, no_ack: bool = False, **kwargs: Any) -> Any:
        recorded = self.ack_emulation and not no_ack
        with self.conn_or_acquire() as client:
            while True:
                keys, args, tag = self._claim([queue], {queue} if recorded else set())
                reply = self._run(CLAIM, keys, args, client)
                if hasattr(self, "_maybe_update_queues_expire"):
                    self._maybe_update_queues_expire(client, queue)
                if reply is None:
                    return None
                if payload := self._read(queue, reply[1], tag if recorded else None):
                    break
        message = self.Message(payload, channel=self)
        if not no_ack:
            self.qos.append(message, message.delivery_tag)
        return message

    def _claim(self: Any, queues: list[str], recorded: set[str]) -> tuple[list[str], list[Any], str]:
        """Keys and arguments of a claim, and its tag.

        A tag for each delivery: copies of a message in several queues bear the same sender's tag, and so does
        a message that came back while its first worker, which was thought dead, is still busy with it. The record
        names the queue rather than the exchange, whose bindings may change.
        """
        tag = str(uuid4())
        lists = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in queues]
        keys = [self.unacked_key, self.unacked_index_key, *map(self._bell, queues), *lists]
        endings = [f',"",{dumps(queue)}]' if queue in recorded else "" for queue in queues]
        return keys, [tag, time(), BELL_LIFE, len(queues), *endings], tag

    def _brpop_start(self: Any, timeout: float | None = None) -> None:
        """Ask for a message; after a look that found nothing, wait for one first."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._restore_without_event_loop()
        recorded = set(queues) - self._without_acks if self.ack_emulation else set()
        if recorded and not self._found_nothing:
            keys, args, tag = self._claim(queues, recorded)
            self._claimed = queues, recorded, tag
            command = ["EVALSHA", self._scripts[CLAIM].sha, len(keys), *map(self._prefixed, keys), *args]
        else:
            self._claimed = None
            plain = [queue for queue in queues if queue not in recorded]
            keys = [self._q_for_pri(queue, step) for step in self.priority_steps for queue in plain]
            keys += [self._bell(queue) for queue in queues if queue in recorded]
            timeout = self.brpop_timeout if timeout is None else timeout
            command = ["BRPOP", *map(self._prefixed, keys), timeout or 0]
        self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        self.client.connection.send_command(*command)

    def _restore_without_event_loop(self: Any) -> None:
        """Look for timed-out messages also where no event loop calls for it (gevent).

        kombu's own loop does so when a wait ends without a reply, but a BRPOP always replies first.
        """
        cycle = self.connection.cycle
        if cycle._in_protected_read and monotonic() >= self._restore_at:
            self._restore_at = monotonic() + 1
            cycle.maybe_restore_messages()

    def _brpop_read(self: Any, **options: Any) -> bool:
        """Deliver what a claim (or, of a queue without acknowledgements, the wait itself) brought."""
        claimed, self._found_nothing = self._claimed, False
        try:
            connection = self.client.connection
            try:
                reply = self.client.parse_response(connection, "EVALSHA" if claimed else "BRPOP", **options)
            except NoScriptError:
                with self.conn_or_acquire() as client:
                    client.script_load(CLAIM)
                raise Empty from None
            except self.connection_errors:
                connection.disconnect()
                raise
            if reply is None:
                self._found_nothing = claimed is not None
                raise Empty
            tag = None
            if claimed:
                queues, recorded, new_tag = claimed
                queue = queues[reply[0] - 1]
                tag = new_tag if queue in recorded else None
            else:
                queue, *step = bytes_to_str(reply[0]).rsplit(self.sep, 1)
                if step == [BELL]:
                    raise Empty
            payload = self._read(queue, reply[1], tag)
            if payload is None:
                raise Empty
            if tag is not None and queue not in self.connection._callbacks:  # cancelled after it had asked
                self.qos.restore_by_tag(tag)
                raise Empty
            self._queue_cycle.rotate(queue)
            self.connection._deliver(payload, queue)
            return True
        finally:
            self._in_poll = None
            if hasattr(self, "_flush_brpop_reauth"):  # kombu 5.7
                self._flush_brpop_reauth()

    def _read(self: Any, queue: str, item: bytes, tag: str | None) -> dict[str, Any] | None:
        """The message, or None if it is none that kombu could read; `tag` is that of its record, if it has one."""
        try:
            payload: dict[str, Any] = loads(bytes_to_str(item))
            if tag is not None:
                payload = Recorded(payload)
                payload["properties"]["delivery_tag"] = tag
            self.Message(payload, channel=self)  # would otherwise fail in the consumer, and end the worker
        except UNREADABLE as exc:
            self._set_aside(queue, item, tag, f"it cannot be read: {exc!r}")
            return None
        return payload

    def _move(self: Any, tag: str, lists: list[str], text: str | bytes, client: Any, first: bool = False) -> None:
        keys = [self.unacked_key, self.unacked_index_key, *lists]
        self._run(MOVE, keys, [tag, "RPUSH" if first else "LPUSH", BELL_LIFE, text], client)

    def _set_aside(self: Any, key: str, item: bytes, tag: str | None, why: str) -> None:
        aside = f"{key}{BROKEN}"
        with self.conn_or_acquire() as client:
            if tag is None:
                client.lpush(aside, item)
            else:
                self._move(tag, [aside], item, client)
        logger.critical("Moved a message from %r to the Redis list %r: %s", key, self._prefixed(aside), why)


class Channel(AtomicFetch, redis.Channel):  # type: ignore[misc,unused-ignore]
    """A channel to one Redis server."""


class SentinelChannel(AtomicFetch, redis.SentinelChannel):  # type: ignore[misc,unused-ignore]
    """A channel to the server that Redis Sentinel says is the master."""


class Transport(redis.Transport):  # type: ignore[misc,unused-ignore]
    """Chosen by ``broker_transport = "django_taskkit.transports.redis:Transport"``."""

    Channel = Channel
    can_parse_url = True  # else kombu drops the scheme, and with it the TLS of rediss:// and the Sentinels

    def __init__(self, client: Any, **kwargs: Any) -> None:
        parse_address(client)
        if has_sentinels(client):
            self.Channel = SentinelChannel  # type: ignore[assignment,unused-ignore]
            self.default_port = redis.SentinelTransport.default_port
        keep_transport(client)
        super().__init__(client, **kwargs)

    def as_uri(self, uri: str, include_password: bool = False, mask: str = "**") -> str:
        return address(self.client, uri, include_password, mask)
