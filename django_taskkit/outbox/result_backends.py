"""A result backend that is away must not keep a task from being published.

Celery tells the backend of every task before it publishes it, so that a result can be waited for later. That is an
optimisation: whoever waits subscribes then, and looks first whether the result is there already. Yet with Redis
away it takes 19 seconds, ends in an error, and the task is not sent.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

logger = logging.getLogger("django_taskkit")

PAUSE = 5.0
"""Seconds for which a backend that was away is not tried again before publishing."""

CONNECT_TIMEOUT = 5.0
"""Seconds to wait for a connection where the project says nothing; the kernel would wait for two minutes."""

_in_passing: ContextVar[bool] = ContextVar("django_taskkit_in_passing", default=False)


def bear_outage(backend: Any) -> Any:
    """Make ``backend`` let tasks be published while it is away; return it."""
    on_task_call = backend.on_task_call
    add_pending_result: Any = getattr(backend, "add_pending_result", None)
    consumer = getattr(backend, "result_consumer", None)
    guard = _Guard(type(backend).__name__)
    remembers = hasattr(consumer, "_reconnect_pubsub")

    def call(*args: Any, **kwargs: Any) -> None:
        if remembers or not guard.was_away:
            guard.pass_by(lambda: on_task_call(*args, **kwargs))

    def add(result: Any, *args: Any, **kwargs: Any) -> Any:
        # Weak is what a group asks for while it is being sent; whoever waits for a result does it otherwise.
        if not (kwargs.get("weak") or (args and args[0])):
            return add_pending_result(result, *args, **kwargs)
        guard.pass_by(lambda: add_pending_result(result, *args, **kwargs))
        return result

    backend.on_task_call = call
    if consumer is not None and add_pending_result is not None:
        backend.add_pending_result = add
    if remembers:
        _bear_redis_outage(backend, consumer, guard)
    return backend


class _Guard:
    """Lets something fail that is not worth waiting for."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._away_until = 0.0

    @property
    def was_away(self) -> bool:
        """Whether the backend could not be reached a moment ago."""
        return self._away_until > 0 and self._clock() < self._away_until

    def pass_by(self, action: Callable[[], Any]) -> None:
        """Do ``action`` with no second attempt; never raises."""
        token = _in_passing.set(True)
        try:
            action()
        except Exception as exc:
            self._away_until = self._clock() + PAUSE
            message = "the result backend (%s) can't be reached; tasks are published all the same: %r"
            logger.warning(message, self._name, exc)
        finally:
            _in_passing.reset(token)


def _bear_redis_outage(backend: Any, consumer: Any, guard: _Guard) -> None:
    """Keep Redis' consumer from reconnecting for 19 seconds, and from forgetting what it could not subscribe to."""
    if backend.connparams.get("socket_connect_timeout", 0) is None:
        backend.connparams["socket_connect_timeout"] = CONNECT_TIMEOUT
    reconnect_on_error, consume_from = consumer.reconnect_on_error, consumer.consume_from
    on_wait_for_pending, cancel_for = consumer.on_wait_for_pending, consumer.cancel_for

    @contextlib.contextmanager
    def reconnect_once() -> Iterator[None]:
        if not _in_passing.get():
            with reconnect_on_error():
                yield
            return
        try:
            yield
        except consumer._connection_errors:
            consumer._reconnect_pubsub()  # when it fails, ``_pubsub`` is None

    def is_cut_off() -> bool:
        return consumer._pubsub is None and bool(consumer.subscribed_to)

    def consume(task_id: str) -> None:
        in_passing = _in_passing.get()
        if not is_cut_off():
            consume_from(task_id)
            return
        # It subscribes to all of these once there is a connection.
        consumer.subscribed_to.add(backend.get_key_for_task(task_id))
        if not in_passing:
            consumer._ensure(consumer._reconnect_pubsub, ())
        elif not guard.was_away:
            consumer._reconnect_pubsub()

    def cancel(task_id: str) -> None:
        # A result that is garbage says so, in whatever thread and line that happens.
        guard.pass_by(lambda: cancel_for(task_id))

    def wait(result: Any, **kwargs: Any) -> Any:
        if is_cut_off():
            consumer._ensure(consumer._reconnect_pubsub, ())
        return on_wait_for_pending(result, **kwargs)

    consumer.reconnect_on_error, consumer.consume_from = reconnect_once, consume
    consumer.on_wait_for_pending, consumer.cancel_for = wait, cancel
