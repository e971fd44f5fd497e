"""Take one message from the queue to its end, as a worker does: Celery's strategy, request, pool and tracer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from celery import Celery, _state, signals
from celery.exceptions import Ignore, Reject, Retry, TaskRevokedError
from celery.worker import state as worker_state
from kombu.serialization import prepare_accept_content

from django_taskkit.testing.broker import Broker, Stored
from django_taskkit.testing.clock import FakeClock
from django_taskkit.testing.events import Ran, State
from django_taskkit.testing.faults import Faults
from django_taskkit.testing.process import InlinePool, Job
from django_taskkit.testing.transactions import as_in_worker
from django_taskkit.worker.reports import exception_of

HOSTNAME = "inline@test"


class _Consumer(SimpleNamespace):
    """What Celery asks of a consumer, in its attributes; and hashable, since it is the sender of ``task_received``."""

    __hash__ = object.__hash__  # type: ignore[assignment]


class Delivery:
    """Runs messages one at a time; each is acknowledged, or given back, as Celery and django_taskkit decide."""

    def __init__(self, app: Celery, broker: Broker, clock: FakeClock, faults: Faults) -> None:
        self._app: Any = app
        self._broker = broker
        self._clock = clock
        self._faults = faults
        self._pool = InlinePool(app)
        self._connection: Any = broker.connect()
        self._channel: Any = self._connection.channel()
        self._strategies: dict[str, Callable[..., Any]] = {}
        self._end: tuple[State, BaseException | None] = ("revoked", None)
        self._result: Any = None

    def close(self) -> None:
        self._connection.release()

    def run(self, stored: Stored) -> Ran:
        """Run the message, with the fake clock standing still."""
        task = self._app.tasks[stored.task]
        self._faults.prepare(task)
        self._broker.take(stored)
        message = self._channel.Message(stored.raw, channel=self._channel)
        message.accept = prepare_accept_content(self._app.conf.accept_content)
        self._channel.qos.append(message, message.delivery_tag)
        self._end, self._result, at = ("revoked", None), None, self._clock.now()
        # The first protocol has it all in the body.
        payload = None if "task" in message.headers else message.decode()
        with as_in_worker():
            self._strategy(stored.task)(message, payload, message.ack_log_error, message.reject_log_error, ())
        state, exception = self._end
        retries = message.headers.get("retries") or 0
        return Ran(
            task=stored.task,
            id=stored.id,
            attempt=retries + 1 if isinstance(retries, int) else 1,
            state=state,
            at=at,
            result=self._result,
            exception=exception,
        )

    def _strategy(self, name: str) -> Callable[..., Any]:
        if name not in self._strategies:
            self._strategies[name] = self._app.tasks[name].start_strategy(self._app, self._consumer())
        return self._strategies[name]

    def _consumer(self) -> Any:
        """What Celery's strategy needs of a consumer: no timer, since the message is due, and no rate limits."""
        at_once = SimpleNamespace(call_at=lambda eta, action, args=(), **options: action(*args))
        return _Consumer(
            hostname=HOSTNAME,
            connection_errors=(OSError,),
            event_dispatcher=None,
            timer=at_once,
            apply_eta_task=self._start_reserved,
            on_task_request=self._start,
            disable_rate_limits=True,
            task_buckets=dict.fromkeys(self._app.tasks),
            _limit_task=None,
            _limit_post_eta=None,
            pool=self._pool,
            qos=SimpleNamespace(increment_eventually=lambda: None),
            controller=SimpleNamespace(state=worker_state),
            app=self._app,
        )

    def _start_reserved(self, request: Any) -> None:
        worker_state.task_reserved(request)
        self._start(request)

    def _start(self, request: Any) -> None:
        try:
            request.execute_using_pool(self._pool)
        except TaskRevokedError:
            # Expired or revoked; or started so often that it counts as the one that kills its workers.
            self._end = ("revoked" if request._already_revoked else "failed", None)
            return
        job = self._pool.take_job()
        with _as_in_pool(), self._noting_result():
            self._end = self._run(job, request)

    def _run(self, job: Job, request: Any) -> tuple[State, BaseException | None]:
        ending = self._faults.next_ending(request.task.name)
        if ending == "timed out":
            job.exceed_time_limit()
            return "timed out", None
        if ending is not None:
            job.die(after_run=ending == "killed after run")
            return "killed", None
        reported, value = job.run()
        if not reported:
            return "failed", exception_of(value)
        failed, outcome, _runtime = value
        if not failed:
            return "succeeded", None
        return _state_of(exception_of(outcome))

    @contextmanager
    def _noting_result(self) -> Iterator[None]:
        def note(result: Any = None, **kwargs: Any) -> None:
            self._result = result

        signals.task_success.connect(note, weak=False)
        try:
            yield
        finally:
            signals.task_success.disconnect(note)


def _state_of(exc: BaseException) -> tuple[State, BaseException | None]:
    if isinstance(exc, Retry):
        return "retried", exc.exc
    if isinstance(exc, Ignore):
        return "ignored", exc
    return ("rejected" if isinstance(exc, Reject) else "failed"), exc


@contextmanager
def _as_in_pool() -> Iterator[None]:
    """Have Celery refuse to wait for results, which would be the test's own process waiting for itself."""
    celery_state: Any = _state
    before = celery_state.task_join_will_block()
    celery_state._set_task_join_will_block(True)
    try:
        yield
    finally:
        celery_state._set_task_join_will_block(before)
