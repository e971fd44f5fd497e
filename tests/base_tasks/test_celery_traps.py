"""Traps in plain Celery's own retrying, each shown on plain Celery.

None of our classes is used here: these tests pass because Celery behaves like this, and fail when a release stops.
Tasks run through Celery's own tracer (``apply``), which retries at once and tells the delay it would have waited.
"""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable, Iterator

import celery
import pytest
from billiard.exceptions import SoftTimeLimitExceeded
from celery import Celery, signals
from celery.app.trace import build_tracer
from celery.exceptions import Reject, Retry
from kombu.transport.native_delayed_delivery import calculate_routing_key

from tests.own_apps import OwnTasks

CELERY = tuple(int(number) for number in celery.__version__.split(".")[:2])


@pytest.fixture
def app() -> Iterator[Celery]:
    app = OwnTasks("traps", set_as_current=False, fixups=[])
    app.conf.update(
        broker_url="memory://",
        result_backend="cache+memory://",
        task_default_queue=f"traps-{uuid.uuid4().hex}",
    )
    yield app
    app.close()


@pytest.fixture
def unused_tcp_address() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{sock.getsockname()[1]}"


@pytest.fixture
def delays_of() -> Iterator[Callable[..., list[float]]]:
    """Runs a task to its end; the delays that Celery chose between its attempts."""
    receivers = []

    def run(task: celery.Task, *args) -> list[float]:
        delays: list[float] = []

        def receive(reason: Retry, **_) -> None:
            delays.append(reason.when)

        receivers.append(receive)
        signals.task_retry.connect(receive, sender=task, weak=False)
        task.apply(args=args)
        signals.task_retry.disconnect(receive, sender=task)
        return delays

    yield run
    for receive in receivers:
        signals.task_retry.disconnect(receive)


def failing_task(app: Celery, **options) -> celery.Task:
    @app.task(name="traps.failing", autoretry_for=(ValueError,), **options)
    def failing() -> None:
        raise ValueError("no")

    return app.tasks["traps.failing"]


def test_a_max_retries_given_to_one_retry_limits_every_later_run_in_the_process(app, delays_of):
    @app.task(name="traps.leak", bind=True, autoretry_for=(ValueError,), max_retries=4)
    def leak(self, limit_this_run: bool) -> None:
        if limit_this_run:
            raise self.retry(max_retries=1, countdown=1)
        raise ValueError("no")

    task = app.tasks["traps.leak"]

    before = delays_of(task, False)
    delays_of(task, True)
    after = [delays_of(task, False) for _ in range(3)]

    assert len(before) == 4
    assert [len(delays) for delays in after] == [1, 1, 1]
    assert task.override_max_retries == 1


def test_the_delay_of_one_run_is_written_into_the_options_all_runs_share_before_celery_5_7(app, delays_of):
    options: dict[str, object] = {}

    delays_of(failing_task(app, retry_backoff=7, retry_jitter=False, max_retries=2, retry_kwargs=options))

    assert options == ({"countdown": 28} if CELERY < (5, 7) else {})


@pytest.mark.parametrize("countdown", [0.5, 0.999])
def test_a_delay_below_one_second_cannot_be_expressed_on_quorum_queues(countdown):
    with pytest.raises(ValueError, match="countdown must be a positive number"):
        calculate_routing_key(int(countdown), "queue")


def test_a_max_retries_of_none_in_retry_kwargs_means_three_not_infinite(app, delays_of):
    delays = delays_of(failing_task(app, retry_kwargs={"max_retries": None, "countdown": 1}))

    assert len(delays) == 3


def test_autoretry_for_one_class_that_is_not_a_tuple_fails_at_the_first_use(app):
    @app.task(name="traps.not_a_tuple", autoretry_for=ValueError)
    def not_a_tuple() -> None:
        """Decorated without complaint."""

    with pytest.raises(TypeError, match="'type' object is not iterable"):
        not_a_tuple.apply()


def test_a_task_that_ran_into_its_soft_time_limit_is_run_again(app, delays_of):
    @app.task(name="traps.slow", autoretry_for=(Exception,), max_retries=2)
    def slow() -> None:
        raise SoftTimeLimitExceeded

    assert len(delays_of(app.tasks["traps.slow"])) == 2


def test_a_call_with_wrong_arguments_is_retried_although_it_can_never_work(app, delays_of):
    @app.task(name="traps.no_arguments", autoretry_for=(Exception,), max_retries=2)
    def no_arguments() -> None:
        """Never entered by this test."""

    assert len(delays_of(app.tasks["traps.no_arguments"], "one too many")) == 2


@pytest.mark.parametrize("asked", [1.9, 0.25])
def test_a_retry_backoff_with_a_fraction_is_silently_made_one_second(app, delays_of, asked):
    delays = delays_of(failing_task(app, retry_backoff=asked, retry_jitter=False, max_retries=3))

    assert delays == [1, 2, 4]


def test_a_retry_backoff_max_below_one_second_takes_every_delay_away(app, delays_of):
    delays = delays_of(failing_task(app, retry_backoff=1, retry_backoff_max=0.9, retry_jitter=False, max_retries=3))

    assert delays == [0, 0, 0]


def test_full_jitter_can_retry_without_any_delay(app, delays_of):
    task = failing_task(app, retry_backoff=1, max_retries=50, retry_backoff_max=1)

    assert 0 in delays_of(task), "fifty draws from {0, 1} without a 0: once in 2**50 runs"


def test_autoretry_without_backoff_waits_three_minutes_without_jitter(app, delays_of):
    delays = delays_of(failing_task(app, retry_jitter=True, max_retries=3))

    assert delays == [180, 180, 180]


def test_a_call_of_retry_ignores_retry_backoff(app, delays_of):
    @app.task(name="traps.manual", bind=True, autoretry_for=(KeyError,), retry_backoff=1, max_retries=2)
    def manual(self) -> None:
        raise self.retry(exc=ValueError("no"))

    assert delays_of(app.tasks["traps.manual"]) == [180, 180]


def test_a_countdown_in_retry_kwargs_is_ignored_where_there_is_a_backoff(app, delays_of):
    delays = delays_of(
        failing_task(app, retry_backoff=1, retry_jitter=False, retry_kwargs={"countdown": 99, "max_retries": 2})
    )

    assert delays == [1, 2]


def test_a_retry_that_cannot_be_published_ends_as_a_reject_that_drops_the_message(app, unused_tcp_address):
    app.conf.update(broker_url=f"amqp://{unused_tcp_address}//", task_publish_retry=False)
    app.conf.broker_connection_timeout = 1

    @app.task(name="traps.unpublished", bind=True)
    def unpublished(self) -> None:
        raise self.retry(exc=ValueError("the error that matters"), countdown=1)

    task = app.tasks["traps.unpublished"]
    task_id = str(uuid.uuid4())
    request = {
        "id": task_id,
        "delivery_info": {"routing_key": app.conf.task_default_queue, "exchange": ""},
        "retries": 0,
    }

    info = build_tracer(task.name, task, app=app)(task_id, (), {}, request=request).info

    assert isinstance(info.retval, Reject)
    assert info.retval.requeue is False
    assert "the error that matters" not in str(info.retval)
    assert app.AsyncResult(task_id).state == "PENDING"


def test_celery_that_propagates_eagerly_raises_retry_out_of_delay_instead_of_retrying(app):
    app.conf.update(task_always_eager=True, task_eager_propagates=True)
    runs = []

    @app.task(name="traps.eager", autoretry_for=(ValueError,))
    def eager() -> None:
        runs.append(1)
        raise ValueError("no")

    with pytest.raises(Retry):
        eager.delay()
    assert len(runs) == 1


def test_a_retry_that_does_not_throw_succeeds_and_runs_again(app):
    @app.task(name="traps.quiet", bind=True)
    def quiet(self) -> str:
        self.retry(throw=False, countdown=0)
        return "done"

    task = app.tasks["traps.quiet"]
    task_id = str(uuid.uuid4())
    request = {
        "id": task_id,
        "delivery_info": {"routing_key": app.conf.task_default_queue, "exchange": ""},
        "retries": 0,
    }

    build_tracer(task.name, task, app=app)(task_id, (), {}, request=request)

    assert app.AsyncResult(task_id).state == "SUCCESS"
    with app.connection_for_read() as connection:
        assert connection.default_channel._size(app.conf.task_default_queue) == 1
