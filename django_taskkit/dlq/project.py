"""The project's own Celery app, for what sends messages that must reach the project's own broker."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery, _state
from celery.app import app_or_default

from django_taskkit.exceptions import NoAppError


def project_app() -> Celery:
    """Return the Celery app that is current in this process.

    Raises:
        NoAppError: the project's app was not imported. Celery then makes one that knows none of the project's
            settings and takes a RabbitMQ on localhost for the broker: what is sent there is lost.
    """
    if not has_app():
        package = os.environ.get("DJANGO_SETTINGS_MODULE", "").partition(".")[0] or "the project"
        raise NoAppError(
            "No Celery app is loaded in this process, so messages would not reach the project's broker. "
            f"Import the app in {package}/__init__.py: from .celery import app as celery_app"
        )
    return app_or_default()


def has_app() -> bool:
    """Say whether the current Celery app is one that somebody made or configured; makes none current."""
    known: Any = _state  # what its stubs leave out
    app = known._tls.current_app or known.default_app or _made_by_celery()
    if app.main != "default" or app.set_as_current:
        return True
    # Not ``conf.broker_url``, which is CELERY_BROKER_URL too: that says nothing of queues and routes.
    return bool(app.conf.get("broker_url") or app.conf.get("broker_write_url"))


def _made_by_celery() -> Any:
    """Return what Celery would make its default app, which a ``celeryconfig`` module may configure."""
    loader = os.environ.get("CELERY_LOADER") or "default"
    return Celery("default", fixups=[], set_as_current=False, loader=loader)
