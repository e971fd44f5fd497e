"""What happens when a worker starts.

It doesn't start with settings or retry options that make no sense; one sentence for each says why. And once it is
ready it brings in the dead letters that were kept in files on its machine, which may have no relay.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from celery import signals
from django.db import connections

from django_taskkit import conf
from django_taskkit.base_tasks.options import problems, store_problems
from django_taskkit.dlq import spool, spool_files
from django_taskkit.exceptions import ConfigurationError

logger = logging.getLogger("django_taskkit")

FILES_AT_A_TIME = 100


def install() -> None:
    signals.celeryd_init.connect(_refuse_bad_settings, dispatch_uid="django_taskkit.settings", weak=False)
    signals.celeryd_init.connect(_offer_report, dispatch_uid="django_taskkit.report", weak=False)
    signals.worker_ready.connect(_bring_in_files, dispatch_uid="django_taskkit.spool", weak=False)


def _refuse_bad_settings(*, instance: Any, **kwargs: Any) -> None:
    # Celery swallows what a receiver raises, except SystemExit.
    try:
        conf.current()
    except ConfigurationError as exc:
        raise SystemExit(str(exc)) from None
    wrong = [complaint for _name, complaint in problems(instance.app)]
    wrong += [f"{problem.text} {problem.hint}" for problem in store_problems(instance.app) if problem.unusable]
    if wrong:
        raise SystemExit("\n".join(wrong))


def _offer_report(**kwargs: Any) -> None:
    """Let the worker answer ``taskkit_report``; Celery looks for commands when it makes the worker."""
    from django_taskkit.worker import report_command  # noqa: F401  (importing it registers the command)


def _bring_in_files(**kwargs: Any) -> None:
    """Begin with it, and don't wait: the database may be away, and there may be many."""
    try:
        if spool_files.names():
            threading.Thread(target=_drain_files, name="django_taskkit.spool", daemon=True).start()
    except Exception:
        logger.exception("the files of the spool can't be looked at")


def _drain_files() -> None:
    try:
        while spool.drain_files(FILES_AT_A_TIME):
            pass
    except Exception:
        logger.exception("the files of the spool could not be brought in")
    finally:
        connections.close_all()
