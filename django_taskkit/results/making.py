"""A run that makes a value, and how it writes down what becomes of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, TypeVar

from celery.exceptions import SoftTimeLimitExceeded

from django_taskkit.envelope import RESULT_HEADER
from django_taskkit.exceptions import StoreError
from django_taskkit.results.order import Order, read_order
from django_taskkit.results.records import Record, new_mark, put
from django_taskkit.stores import ValueStore, update
from django_taskkit.stores.opening import store_in_cache
from django_taskkit.stores.renewal import Duty, renewer

T = TypeVar("T")

logger = logging.getLogger("django_taskkit")

PAUSES: Final = (0.2, 0.6, 1.2)
"""Seconds between the times that a store is asked which doesn't answer at the end of a run."""


@dataclass(kw_only=True)
class Making:
    """A run that makes a value."""

    order: Order
    attempt: int
    mark: str = field(default_factory=new_mark)
    has_begun: bool = False
    """Whether its mark is on the record."""
    versions: dict[str, str]
    """Of the tags, when it began."""
    duty: Duty | None = None

    def store(self) -> ValueStore:
        return store_of(self.order)

    def put(self, status: str, until: float, **more: Any) -> None:
        """Note how the run has ended, if the record is its own."""
        record = Record(task_id=self.order.task_id, status=status, until=until, attempt=self.attempt, **more)
        change, ttl = put(record, self.mark), record.ttl(time.time())
        patiently(self.store(), lambda store: update(store, self.order.run_key, change, ttl=ttl))

    def end(self) -> None:
        """Renew it no more."""
        if self.duty is not None:
            renewer.remove(self.duty)


def order_of(request: Any) -> Order | None:
    """Return what the message of a running task says; None if no ``ResultCache`` has sent it."""
    header = getattr(request, RESULT_HEADER, None)
    if header is None and request.is_eager:  # has its headers in a dict alone
        header = (request.headers or {}).get(RESULT_HEADER)
    return None if header is None else own_order(header, request.id)


def own_order(header: object, task_id: object) -> Order | None:
    order = read_order(header)
    return order if order is not None and order.task_id == task_id else None


def store_of(order: Order) -> ValueStore:
    return store_in_cache(order.cache, "the cache of a result")


def patiently(store: ValueStore, action: Callable[[ValueStore], T]) -> T:
    """Do at the end of a run what would be lost: a store that did not answer once is asked a few times more."""
    direct: ValueStore = getattr(store, "store", store)  # without the pauses that keep tasks from waiting for it
    for pause in PAUSES:
        try:
            return action(direct)
        except StoreError:
            time.sleep(pause)
    return action(direct)


def harmless(function: Callable[..., None]) -> Callable[..., None]:
    """Return ``function``, which raises nothing into Celery any more, but for a soft time limit."""

    @wraps(function)
    def do(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except SoftTimeLimitExceeded:
            raise
        except StoreError as exc:  # who waits is told that the task was lost, and sends it again
            logger.warning("what becomes of a cached result can't be written down: %s", exc)
        except Exception:
            logger.exception("what becomes of a cached result can't be written down")

    return do
