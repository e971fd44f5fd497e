"""A worker with settings that make no sense doesn't start, and says why in one sentence."""

from __future__ import annotations

from typing import Any

from celery import signals

from django_taskkit import conf
from django_taskkit.exceptions import ConfigurationError


def install() -> None:
    signals.celeryd_init.connect(_refuse_bad_settings, dispatch_uid="django_taskkit.settings", weak=False)


def _refuse_bad_settings(**kwargs: Any) -> None:
    try:
        conf.current()
    except ConfigurationError as exc:
        # Celery swallows what a receiver raises, except this.
        raise SystemExit(str(exc)) from None
