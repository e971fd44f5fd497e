"""Put the lease in place, for every beat of the process: ``celery beat``, and the one in ``worker -B``.

``celery.beat`` is imported by beats alone, and no other process should load it for our sake. So it is hooked into when
it is there: now, or when Celery imports the modules of a beat's app, or when a worker is told to have a beat in it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from celery import signals


def install() -> None:
    """Hook into Celery; doing it twice changes nothing."""
    signals.import_modules.connect(_on_import_modules, dispatch_uid="django_taskkit.beat", weak=False)
    signals.celeryd_init.connect(_on_worker, dispatch_uid="django_taskkit.beat", weak=False)
    signals.beat_embedded_init.connect(_end_in_good_order, dispatch_uid="django_taskkit.beat", weak=False)
    _on_import_modules()


def hook() -> None:
    """Wrap what makes a beat's scheduler."""
    from celery.beat import Service

    service: Any = Service
    if not hasattr(service.get_scheduler, "has_taskkit"):
        service.get_scheduler = _guarding(service.get_scheduler)


def _on_import_modules(**kwargs: Any) -> None:
    if "celery.beat" in sys.modules:
        hook()


def _on_worker(*, options: Any = None, **kwargs: Any) -> None:
    if (options or {}).get("beat"):
        hook()


def _guarding(get_scheduler: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(get_scheduler)
    def get_sole_scheduler(self: Any, lazy: bool = False, *args: Any, **kwargs: Any) -> Any:
        def build(lazy: bool = False) -> Any:
            return get_scheduler(self, lazy, *args, **kwargs)

        if lazy:  # only to be shown
            return build(True)
        from django_taskkit.beat.making import sole_scheduler

        return sole_scheduler(self, build)

    get_sole_scheduler.has_taskkit = True  # type: ignore[attr-defined]
    return get_sole_scheduler


def _end_in_good_order(**kwargs: Any) -> None:
    """Have the beat in a worker save its schedule and give its lease back when the worker ends.

    The worker ends it with SIGTERM, and Celery lets that kill it on the spot.
    """

    def end(*_: object) -> None:
        raise SystemExit

    in_main_thread = threading.current_thread() is threading.main_thread()
    if in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, end)
