"""What the Redis transport does with messages that are not acknowledged yet."""

from __future__ import annotations

import logging
from time import time
from typing import Any

from kombu.transport import redis, virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads

from django_taskkit.transports.redis_scripts import OVERDUE

logger = logging.getLogger("django_taskkit")

#: What reading something that is no message of kombu's raises.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Recorded(dict[str, Any]):
    """A raw message that Redis already counts among the unacknowledged."""


class QoS(redis.QoS):  # type: ignore[misc,unused-ignore]
    """Counts what is unacknowledged, and puts messages back in one step each."""

    def append(self, message: Any, delivery_tag: str) -> None:
        if isinstance(message._raw, Recorded):
            virtual.QoS.append(self, message, delivery_tag)
        else:
            super().append(message, delivery_tag)

    def restore_unacked(self: Any, client: Any = None) -> None:
        """Put back what is unacknowledged; what can't be now stays noted, and comes back when its time is over.

        A worker closes its connection when Redis goes away, and what Redis raises here would end the worker.
        """
        count = len(self._delivered)
        try:
            super().restore_unacked(client)
        except Exception as exc:
            logger.warning("%d unacknowledged messages can't be put back now, and will be later: %r", count, exc)
            self._delivered.clear()

    def restore_visible(self: Any, start: int = 0, num: int | None = 10, interval: int = 10) -> None:
        """Put back what has been unacknowledged for longer than the visibility timeout.

        Without kombu's lock: a worker that was killed with it would keep all others from restoring for five minutes,
        and a full Redis does not grant it. Two workers may look at the same message; one of them moves it.
        """
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            limits = [time() - self.visibility_timeout, num or -1]
            for tag in self.channel._run(OVERDUE, [self.unacked_index_key], limits, client):
                self.restore_by_tag(tag, client)

    def restore_by_tag(self: Any, tag: str | bytes, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue, unless it was settled meanwhile; one that can't be goes aside.

        kombu's transaction starts again whenever any worker takes or settles a message meanwhile, which may never
        end on a busy broker, and it drops a message whose queue it cannot find.
        """
        channel, tag = self.channel, bytes_to_str(tag)
        with channel.conn_or_acquire(client) as client:
            record = client.hget(self.unacked_key, tag)
            if record is None:
                self._remove_from_indices(tag).execute()
                return
            try:
                payload, exchange, routing_key = loads(bytes_to_str(record))
                mark_redelivered(payload)
                urgency, text = channel._get_message_priority(payload), dumps(payload)
            except UNREADABLE as exc:
                channel._set_aside(self.unacked_key, record, tag, f"it cannot be read: {exc!r}")
                return
            queues = [queue for queue in channel._lookup(exchange, routing_key) if queue]
            if queues:
                lists = [(channel._q_for_pri(queue, urgency), channel._bell(queue)) for queue in queues]
                channel._move(tag, [key for pair in lists for key in pair], text, client, first=not leftmost)
            else:
                lost = f"no queue is bound to exchange {exchange!r} with key {routing_key!r}"
                channel._set_aside(self.unacked_key, record, tag, lost)


def mark_redelivered(payload: dict[str, Any]) -> None:
    for place in (payload.get("headers"), payload["properties"].get("delivery_info")):
        if isinstance(place, dict):
            place["redelivered"] = True
