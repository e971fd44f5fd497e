"""A worker's sign of life: that its consumer's loop turns, and what it consumes.

Written where the loop itself comes by, never by a thread that would go on when the loop hangs. There are two loops. The
one with an event loop (Redis and RabbitMQ, but with gevent) runs its timer itself. The blocking one (gevent, the
filesystem broker) comes by `perform_pending_operations` each time around, at least every two seconds.

In the solo pool a task runs in the very thread of the loop, which waits for it. There a thread says so, and no more: it
never says that the loop turned.

A task costs nothing: what runs and waits is counted by Celery anyway.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from django_taskkit.observability.health.signs import EVERY, SignOfLife

SOON = 0.5
"""Seconds from the connection to the first sign of a loop that turns."""


class HealthStep(bootsteps.StartStopStep):  # type: ignore[misc,unused-ignore]
    """Says how the consumer is, from its loop."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **kwargs: Any) -> None:
        super().__init__(parent, **kwargs)
        self.consumer = parent
        self._sign = SignOfLife("worker", str(parent.hostname))
        self._turned_at = time.time()
        self._connected = False
        self._connected_at = time.time()
        self._stopping = False
        self._received = 0
        self._received_at: float | None = None
        self._waiting_since: float | None = None
        self._ended = threading.Event()
        if type(parent.pool).__module__.endswith(".solo"):
            threading.Thread(target=self._watch_solo, name="django_taskkit.health", daemon=True).start()
        self._timer_entries: list[Any] = []
        self._is_new = True
        if parent.hub is None:
            parent.perform_pending_operations = self._turning(parent.perform_pending_operations)
        parent.ensure_connected = self._while_connecting(parent.ensure_connected)
        signals.worker_shutting_down.connect(self._on_stopping, weak=False)
        signals.worker_shutdown.connect(self._on_shutdown, weak=False)

    def start(self, parent: Any) -> None:
        """Connected; once more after each outage."""
        self._connected, self._connected_at = True, time.time()
        self._turned_at = time.time()
        self._cancel_timer()
        # The loop asks for messages once all steps have started: until then it consumes from no queue.
        self._is_new = True
        timer = parent.timer
        self._timer_entries = [timer.call_after(SOON, self._on_timer), timer.call_repeatedly(EVERY, self._on_timer)]
        self._write()

    def stop(self, parent: Any) -> None:
        """The connection is gone, or the worker ends."""
        self._connected, self._connected_at = False, time.time()
        self._cancel_timer()
        self._write()

    shutdown = stop

    def _cancel_timer(self) -> None:
        for entry in self._timer_entries:
            entry.cancel()
        self._timer_entries = []

    def _on_timer(self) -> None:
        if self.consumer.hub is not None:  # the loop itself runs its timers
            self._turned_at = time.time()
            self._write()

    def _watch_solo(self) -> None:
        while not self._ended.wait(EVERY):
            if time.time() - self._turned_at > EVERY and state.active_requests:
                self._write(busy=True)

    def _turning(self, perform: Callable[..., Any]) -> Callable[..., Any]:
        sign = self._sign

        def turn() -> Any:
            if self._is_new or sign.is_due():
                self._is_new = False
                self._turned_at = time.time()
                self._write()
            return perform()

        return turn

    def _while_connecting(self, ensure_connected: Callable[..., Any]) -> Callable[..., Any]:
        def ensure(connection: Any) -> Any:
            ensure_connection = connection.ensure_connection

            def try_and_tell(*args: Any, callback: Any = None, **kwargs: Any) -> Any:
                def tell() -> Any:
                    if self._sign.is_due():
                        self._turned_at = time.time()
                        self._write()
                    return callback() if callback is not None else None

                return ensure_connection(*args, callback=tell, **kwargs)

            connection.ensure_connection = try_and_tell
            try:
                return ensure_connected(connection)
            finally:
                del connection.ensure_connection

        return ensure

    def _on_stopping(self, **kwargs: Any) -> None:
        self._stopping = True
        self._write()

    def _on_shutdown(self, **kwargs: Any) -> None:
        self._ended.set()
        self._sign.remove()

    def _write(self, busy: bool = False) -> None:
        now = time.time()
        received = sum(state.total_count.values())
        reserved, active = len(state.reserved_requests), len(state.active_requests)
        if received != self._received:
            self._received, self._received_at = received, now
            self._waiting_since = None
        if reserved and not active:
            self._waiting_since = self._waiting_since or now
        else:
            self._waiting_since = None
        self._sign.write(
            {
                "turned_at": self._turned_at,
                "connected": self._connected,
                "connected_at": self._connected_at,
                "queues": self._queues(),
                "pool": self._has_pool(),
                "reserved": reserved,
                "active": active,
                "received_at": self._received_at,
                "waiting_since": self._waiting_since,
                "stopping": self._stopping,
                "busy": self._busy_with() if busy else None,
            }
        )

    def _queues(self) -> list[str]:
        consumer = getattr(self.consumer, "task_consumer", None)
        if consumer is None or not self._connected:
            return []
        return [queue.name for queue in consumer.queues if consumer.consuming_from(queue)]

    def _has_pool(self) -> bool:
        """Whether a prefork pool has a process; other pools live in this one."""
        pool = getattr(getattr(self.consumer.pool, "_pool", None), "_pool", None)
        return not isinstance(pool, list) or bool(pool)

    @staticmethod
    def _busy_with() -> str | None:
        return next((str(request.name) for request in tuple(state.active_requests)), None)
