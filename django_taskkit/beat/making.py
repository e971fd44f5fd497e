"""Make the scheduler of a beat, as ``TASKKIT["BEAT_LOCK"]`` wants it."""

from __future__ import annotations

import logging
import socket
import time
import uuid
from collections.abc import Callable
from os import getpid
from typing import Any

from django_taskkit import conf
from django_taskkit.beat import turns
from django_taskkit.beat.lease import Lease, NoLease
from django_taskkit.beat.ledger import Ledger
from django_taskkit.beat.place import Place, Sign
from django_taskkit.beat.scheduler import SoleScheduler
from django_taskkit.dlq.text import bounded
from django_taskkit.process_identity import of_this_process

logger = logging.getLogger("django_taskkit")


def name_of(app: Any) -> str:
    """Return the name under which the beats of ``app`` meet."""
    return str(app.main or "celery")


def place_for(app: Any) -> Place | None:
    """Return where the beats of ``app`` meet; None if they don't.

    Raises:
        ConfigurationError: ``TASKKIT`` makes no sense.
    """
    kind = conf.current().beat_lock
    if kind == "off":
        return None
    if kind == "store":
        from django_taskkit.beat.store import StorePlace
        from django_taskkit.stores.opening import shared_store

        shared_store()  # a name that stands for nothing is an error now, and no outage
        return StorePlace(name_of(app))
    from django_taskkit.beat.database import DatabasePlace

    return DatabasePlace(name_of(app))


def sole_scheduler(service: Any, build: Callable[[bool], Any]) -> SoleScheduler:
    """Return what takes the place of the scheduler that ``build`` makes for ``service``.

    Args:
        build: takes whether only to look at it.
    """
    place = place_for(service.app)
    scheduler = service.scheduler_cls
    me = Sign(
        holder=f"{socket.gethostname()[:200]}:{getpid()} {uuid.uuid4().hex}",
        host=bounded(socket.gethostname()),
        pid=getpid(),
        process=of_this_process()[:255],
        scheduler=bounded(scheduler if isinstance(scheduler, str) else f"{scheduler.__module__}:{scheduler.__name__}"),
        started_at=time.time(),
        seen_at=time.time(),
        next_due_at=None,
        is_released=False,
        version=0,
    )
    return SoleScheduler(
        build=lambda: build(False),
        idle=lambda: build(True),
        lease=NoLease() if place is None else Lease(place, me),
        ledger=None if place is None else Ledger(place, me.holder),
        on_turn=turns.tell,
        on_end=turns.tell_end,
    )
