"""What is counted, and where in a task's life.

Each thing is counted once, in the process where it happens and after it did: what is sent when the broker or the outbox
has it, a success when its result is stored, a death when its row is written, which is once however often Celery reports
it. A run whose process is lost has begun and has no end; its message is dead (``worker_lost``), or begins again.

By Celery's signals, which cost 2 us each; a task that succeeds costs three of them (benchmarks/metrics.py).
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any, Protocol

from celery import signals as celery_signals
from celery import states
from celery.utils.time import maybe_iso8601
from django.db import transaction

from django_taskkit import conf, signals
from django_taskkit.envelope import SENT_AT_HEADER
from django_taskkit.observability.metrics import catalogue, labels
from django_taskkit.observability.metrics.catalogue import Metric
from django_taskkit.outbox.publishing import undecided
from django_taskkit.running import running_under

logger = logging.getLogger("django_taskkit")


class Counter(Protocol):
    """Where counts go: an adapter for one library."""

    def add(self, metric: Metric, labels: tuple[str, ...]) -> None:
        """Add 1 to a counter."""

    def observe(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Note one value of a histogram."""

    def close(self) -> None:
        """Leave no trace."""


REMEDIES = {
    "prometheus": "pip install 'django-taskkit[prometheus]'",
    "opentelemetry": "pip install 'django-taskkit[otel]'",
}

_counters: list[Counter] | None = None
_complained: set[str] = set()
_making = threading.Lock()


def _unlocked() -> None:
    """Another thread may have held the lock when this process was forked."""
    global _making
    _making = threading.Lock()


os.register_at_fork(after_in_child=_unlocked)


def counters() -> list[Counter]:
    """Return the adapters that the project has chosen, made when something is counted first."""
    global _counters
    if (found := _counters) is None:
        with _making:  # Prometheus knows each metric once
            if (found := _counters) is None:
                found = _counters = [made for name in conf.current().metrics if (made := _made(name)) is not None]
    return found


def use(*chosen: Counter) -> None:
    """Count for these from now on; for none: for those of the settings."""
    global _counters
    _counters = list(chosen) or None


def restart() -> None:
    """Make the adapters of the settings anew, in a process that counts in another way from now on."""
    global _counters
    with _making:
        for counter in _counters or ():
            counter.close()
        _counters = None


def count(metric: Metric, *values: str) -> None:
    for counter in counters():
        try:
            counter.add(metric, values)
        except Exception:
            _complain(counter, metric)


def observe(metric: Metric, value: float, *values: str) -> None:
    for counter in counters():
        try:
            counter.observe(metric, values, value)
        except Exception:
            _complain(counter, metric)


def install() -> None:
    for signal, receiver in _receivers():
        signal.connect(receiver, dispatch_uid=f"django_taskkit.metrics.{receiver.__name__}", weak=False)


def uninstall() -> None:
    for signal, receiver in _receivers():
        signal.disconnect(receiver, dispatch_uid=f"django_taskkit.metrics.{receiver.__name__}")


def _made(name: str) -> Counter | None:
    """Return the adapter for a library; None, and a line in the log, if that is not installed."""
    try:
        if name == "prometheus":
            from django_taskkit.observability.metrics.prometheus import Prometheus

            return Prometheus()
        from django_taskkit.observability.metrics.opentelemetry import OpenTelemetry

        return OpenTelemetry()
    except ImportError as exc:
        logger.error("metrics: TASKKIT['METRICS'] names %r: %s; %s", name, exc, REMEDIES[name])
        return None


def _complain(counter: Counter, metric: Metric) -> None:
    """Say once that an adapter fails, which keeps no other from counting."""
    what = f"{type(counter).__name__} does not count {metric.name}"
    if what not in _complained:
        _complained.add(what)
        logger.exception("metrics: %s", what)


def _harmless(receiver: Callable[..., None]) -> Callable[..., None]:
    """Keep an error of the metrics from whoever is counted; say it once, since the next task has the same."""

    @wraps(receiver)
    def receive(**kwargs: Any) -> None:
        try:
            receiver(**kwargs)
        except Exception:
            if receiver.__name__ not in _complained:
                _complained.add(receiver.__name__)
                logger.exception("metrics: %s counts nothing", receiver.__name__)

    return receive


@_harmless
def _on_publish(*, sender: Any, body: Any = None, headers: Any = None, **kwargs: Any) -> None:
    # Messages of Celery's first protocol have no headers.
    facts = headers if headers and "id" in headers else body if isinstance(body, dict) else {}
    request = running_under(facts.get("id"))
    name = str(sender)
    # A task that replaces itself sends another one under its own id.
    is_retry = bool(facts.get("retries")) if request is None else request.task == name
    lane = labels.of_way(kwargs.get("exchange"), kwargs.get("routing_key") or "")
    metric, task = catalogue.RETRIED if is_retry else catalogue.SENT, labels.of_task(name)
    if using := undecided.get():  # the row is part of a transaction, which may be rolled back
        transaction.on_commit(lambda: count(metric, task, lane), using=using, robust=True)
    else:
        count(metric, task, lane)


@_harmless
def _on_start(*, task: Any, **kwargs: Any) -> None:
    request = task.request
    if request.is_eager:
        return
    request.taskkit_began = time.monotonic()
    lane = request.taskkit_lane = labels.of_request(request)
    count(catalogue.STARTED, task.name, lane)
    if (request.delivery_info or {}).get("redelivered"):
        count(catalogue.REDELIVERED, task.name, lane)
    since = _waits_since(request, task.app)
    if since is not None:
        observe(catalogue.IN_QUEUE, max(0.0, time.time() - since), lane)


@_harmless
def _on_success(*, sender: Any, **kwargs: Any) -> None:
    request = sender.request
    if not request.is_eager:
        count(catalogue.SUCCEEDED, sender.name, getattr(request, "taskkit_lane", labels.UNKNOWN))


@_harmless
def _on_end(*, task: Any, state: Any = None, **kwargs: Any) -> None:
    request = task.request
    began = getattr(request, "taskkit_began", None)
    if began is None:
        return
    observe(catalogue.RUN, time.monotonic() - began, task.name)
    if state == states.IGNORED:
        count(catalogue.IGNORED, task.name, getattr(request, "taskkit_lane", labels.UNKNOWN))


@_harmless
def _on_death(*, event: signals.DeadLettered, **kwargs: Any) -> None:
    count(catalogue.DEAD_LETTERED, labels.of_task_elsewhere(event.task_name), labels.of_reason(event.reason))


@_harmless
def _on_requeue(*, event: signals.Requeued, **kwargs: Any) -> None:
    count(catalogue.REQUEUED, labels.of_task_elsewhere(event.task_name))


@_harmless
def _on_recovery(*, event: signals.Recovered, **kwargs: Any) -> None:
    count(catalogue.RECOVERED, labels.of_task_elsewhere(event.task_name))


@_harmless
def _on_discard(*, event: signals.Discarded, **kwargs: Any) -> None:
    count(catalogue.DISCARDED, labels.of_task_elsewhere(event.task_name))


@_harmless
def _on_breaker(*, event: signals.BreakerChanged, **kwargs: Any) -> None:
    count(catalogue.BREAKER_CHANGES, event.name, event.new)


def _receivers() -> tuple[tuple[Any, Callable[..., None]], ...]:
    return (
        (celery_signals.after_task_publish, _on_publish),
        (celery_signals.task_prerun, _on_start),
        (celery_signals.task_success, _on_success),
        (celery_signals.task_postrun, _on_end),
        (signals.task_dead_lettered, _on_death),
        (signals.task_requeued, _on_requeue),
        (signals.task_recovered, _on_recovery),
        (signals.task_discarded, _on_discard),
        (signals.breaker_changed, _on_breaker),
    )


def _waits_since(request: Any, app: Any) -> float | None:
    """Return since when a worker could have run the message, as seconds since 1970; None if nobody knows."""
    given = getattr(request, SENT_AT_HEADER, None)
    if not isinstance(given, (int, float)) or isinstance(given, bool):
        return None
    try:
        sent = float(given)
    except OverflowError:  # somebody else has written it
        return None
    if not math.isfinite(sent):
        return None
    eta = maybe_iso8601(request.eta) if request.eta else None
    if not isinstance(eta, datetime):
        return sent
    return max(sent, (eta if eta.tzinfo else eta.replace(tzinfo=app.timezone)).timestamp())
