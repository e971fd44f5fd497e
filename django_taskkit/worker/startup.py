"""A worker doesn't start with settings or retry options that make no sense; one sentence for each says why."""

from __future__ import annotations

from typing import Any

from celery import signals

from django_taskkit import conf
from django_taskkit.base_tasks.options import problems
from django_taskkit.exceptions import ConfigurationError


def install() -> None:
    signals.celeryd_init.connect(_refuse_bad_settings, dispatch_uid="django_taskkit.settings", weak=False)


def _refuse_bad_settings(*, instance: Any, **kwargs: Any) -> None:
    # Celery swallows what a receiver raises, except SystemExit.
    try:
        conf.current()
    except ConfigurationError as exc:
        raise SystemExit(str(exc)) from None
    if wrong := [complaint for _name, complaint in problems(instance.app)]:
        raise SystemExit("\n".join(wrong))
