"""Send the task once, however many ask."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from celery.exceptions import SoftTimeLimitExceeded
from django.core.exceptions import ImproperlyConfigured, SynchronousOnlyOperation
from django.db import connections, router, transaction
from kombu.exceptions import EncodeError

from django_taskkit.envelope import RESULT_HEADER
from django_taskkit.exceptions import StoreError
from django_taskkit.models import OutboxMessage
from django_taskkit.progress import write_card
from django_taskkit.results.calls import Call, Calls
from django_taskkit.results.options import Options
from django_taskkit.results.order import Order
from django_taskkit.results.reading import look, refused_by, state_of
from django_taskkit.results.records import GRACE, PENDING, Record, decode
from django_taskkit.results.state import Status, TaskFailure, TaskState
from django_taskkit.results.values import Kept
from django_taskkit.stores import ValueStore
from django_taskkit.stores.opening import NoStoreError, store_in_cache
from django_taskkit.stores.pausing import warnings

logger = logging.getLogger("django_taskkit")

TRIES: Final = 20
"""How often a record that others keep changing is read again."""

SENDING: Final = 60.0
"""Seconds after which a task counts as lost of which nobody has said that it was sent."""

REFUSED_RETRY_AFTER: Final = 10
"""Seconds after which it is worth asking again for what could not be sent."""

RAISED: Final = (SoftTimeLimitExceeded, SynchronousOnlyOperation)
"""What says nothing about cache or broker."""

MISUSE: Final = (TypeError, ValueError, LookupError, ImproperlyConfigured)
"""What sending raises for reasons that are not the broker's."""


class _NotSentError(Exception):
    """Sending the task raised what its caller is to see."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


class Dispatcher:
    """Sends the task of a ``ResultCache``, and says how what was sent stands."""

    def __init__(self, task: Any, options: Options, calls: Calls) -> None:
        self._task = task
        self._options = options
        self._calls = calls

    @property
    def store(self) -> ValueStore:
        """Where it is recorded who makes a value.

        Raises:
            NoStoreError: the cache can't be used for this.
        """
        return store_in_cache(self._options.cache, f"ResultCache of {self._task.name}: cache")

    def state(self, call: Call, kept: Kept | None) -> TaskState:
        """Return how the result of ``call`` stands, of which the cache has ``kept``."""
        made = self._state(kept, None)
        try:
            record = decode(self.store.read(call.run_key))
        except NoStoreError:
            raise
        except StoreError as exc:
            return made if made.status is Status.HIT else self.refused(exc, kept)
        # A fresh value is stale to whoever has asked for a newer one.
        is_renewed = record is not None and record.is_on_its_way(time.time())
        return made if made.status is Status.HIT and not is_renewed else self._state(kept, record, ignore_fresh=True)

    def ask(self, call: Call, kept: Kept | None, *, anew: bool = False) -> TaskState:
        """Return how the result of ``call`` stands; send the task unless it is on its way.

        Args:
            kept: what the cache has; not fresh, unless ``anew``.
            anew: whether to send even if there is a fresh value, or a failure a moment ago.
        """
        try:
            for _ in range(TRIES):
                found = self.store.read(call.run_key)
                state = self._state(kept, decode(found), ignore_fresh=anew)
                if _is_enough(state, anew=anew):
                    return state
                now = time.time()
                # For a moment only: whoever is stopped before it has sent the task must not keep the others waiting.
                new = Record(task_id=str(uuid.uuid4()), status=PENDING, until=now + self._time_to_send)
                if self.store.swap(call.run_key, found, new.encode(), ttl=new.ttl(now)):
                    return self._send_unless_made(call, kept, new)
        except NoStoreError:
            raise
        except StoreError as exc:
            return self.without_cache(call, exc, kept)
        busy = StoreError(f"{call.run_key} is changed by others all the time; it was tried {TRIES} times")
        return self.without_cache(call, busy, kept)

    def without_cache(self, call: Call, exc: Exception, kept: Kept | None = None) -> TaskState:
        """Return the state where nobody can tell whether the task is on its way: refused, or run here and now."""
        if self._options.when_refused == "inline":
            return self._run_inline(call, self._calls.order(call, str(uuid.uuid4())))
        return self.refused(exc, kept)

    def _send_unless_made(self, call: Call, kept: Kept | None, new: Record) -> TaskState:
        is_sent = False
        try:
            # Between the look at the value and that at the record, another's task may have ended.
            newest = look(self._options.cache, call.key, call.tags)
            if newest is not None and (kept is None or newest.task_id != kept.task_id):
                state = self._state(newest, None)
                if state.status is Status.HIT:
                    return state
                kept = newest
            card_time = self._options.lock_timeout + GRACE
            write_card(new.task_id, self._options.cache, key=call.key, tags=call.tags, kept_for=card_time)
            state = self._send(call, kept, new)
            is_sent = state.dispatched
            return state
        except RAISED:
            raise
        except _NotSentError as exc:
            raise exc.error from exc.__cause__
        except StoreError:
            raise
        except Exception as exc:
            raise StoreError(f"the cache {self._options.cache!r} is out of reach: {type(exc).__name__}: {exc}") from exc
        finally:
            if not is_sent:
                self._give_back(call, new)

    def _send(self, call: Call, kept: Kept | None, new: Record) -> TaskState:
        order = self._calls.order(call, new.task_id)
        options = {"ignore_result": True, **self._options.send_with}
        options["headers"] = {**(options.get("headers") or {}), RESULT_HEADER: order.header()}
        eager = self._task.app.conf.task_always_eager
        try:
            self._task.apply_async(call.args, dict(call.kwargs), task_id=new.task_id, **options)
        except RAISED:
            raise
        except EncodeError as exc:
            error = TypeError(f"{self._task.name}: the arguments can't travel to a worker: {exc}")
            raise _NotSentError(error) from exc
        except Exception as exc:  # each broker has errors of its own
            if eager or isinstance(exc, MISUSE):
                raise _NotSentError(exc) from exc
            logger.warning("task %s could not be sent: %r", self._task.name, exc)
            if self._options.when_refused == "inline":
                return self._run_inline(call, order)
            return self.refused(exc, kept)
        if eager:
            kept = look(order.cache, order.key, order.tags)
            return replace(self._state(kept, decode(self.store.read(order.run_key))), dispatched=True)
        sent = replace(new, until=time.time() + self._time_to_begin)
        self._when_committed(lambda: self._note_sent(call, new, sent))
        return self._state(kept, sent, dispatched=True, ignore_fresh=True)

    def _run_inline(self, call: Call, order: Order) -> TaskState:
        task_id = order.task_id
        headers = {**(self._options.send_with.get("headers") or {}), RESULT_HEADER: order.header()}
        done = self._task.apply(call.args, dict(call.kwargs), task_id=task_id, headers=headers, throw=False)
        facts: dict[str, Any] = {"task_id": task_id, "cache": order.cache, "attempt": 1, "dispatched": True}
        if done.successful():
            return TaskState(status=Status.HIT, value=done.result, age=0.0, value_id=task_id, **facts)
        kind = type(done.result)
        error = TaskFailure(kind=f"{kind.__module__}.{kind.__qualname__}", message=str(done.result))
        return TaskState(status=Status.FAILED, error=error, retry_after=REFUSED_RETRY_AFTER, **facts)

    @property
    def _time_to_send(self) -> float:
        return min(SENDING, self._options.lock_timeout)

    @property
    def _time_to_begin(self) -> float:
        countdown: float = self._options.send_with.get("countdown") or 0
        return countdown + self._options.lock_timeout

    def _when_committed(self, note: Callable[[], None]) -> None:
        """Call ``note`` when it is sure that the message goes out: it may wait in the outbox, in this transaction."""
        using = router.db_for_write(OutboxMessage)
        if connections[using].in_atomic_block:
            transaction.on_commit(note, using=using, robust=True)
        else:
            note()

    def _note_sent(self, call: Call, new: Record, sent: Record) -> None:
        now = time.time()
        try:
            self.store.swap(call.run_key, new.encode(), sent.encode(), ttl=sent.ttl(now))
        except StoreError as exc:  # it counts as lost a little early, if it hasn't begun by then
            logger.warning("%s can't be told that its task was sent: %s", call.run_key, exc)

    def _give_back(self, call: Call, new: Record) -> None:
        """Forget that the task is on its way, which was not sent."""
        try:
            self.store.swap(call.run_key, new.encode(), None, ttl=1)
        except StoreError as exc:  # it counts as lost when its time is up
            logger.warning("%s says that a task is on its way that was not sent: %s", call.run_key, exc)

    def _state(self, kept: Kept | None, record: Record | None, **more: Any) -> TaskState:
        return state_of(
            kept,
            record,
            alias=self._options.cache,
            now=time.time(),
            timeout=self._options.timeout,
            stale_for=self._options.stale_for,
            poll_every=self._options.poll_every,
            **more,
        )

    def refused(self, exc: Exception, kept: Kept | None) -> TaskState:
        """Return the state where nothing is sent because of ``exc``."""
        warnings.say(f"results {self._options.cache}", "results of %s are refused: %s", self._task.name, exc)
        return refused_by(
            exc,
            kept,
            alias=self._options.cache,
            now=time.time(),
            timeout=self._options.timeout,
            retry_after=REFUSED_RETRY_AFTER,
        )


def _is_enough(state: TaskState, *, anew: bool) -> bool:
    """Say whether nothing is to be sent."""
    run = state.run if state.status is Status.STALE else state.status
    if run in (Status.PENDING, Status.RUNNING, Status.RETRYING):
        return True
    return not anew and run in (Status.HIT, Status.FAILED)
