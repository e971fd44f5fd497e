"""How a check is registered, and what it says: never a traceback."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, cast

from celery import Celery
from celery.app import app_or_default
from celery.exceptions import ImproperlyConfigured as CeleryImproperlyConfigured
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from django_taskkit import conf
from django_taskkit.dlq.project import has_app
from django_taskkit.exceptions import ConfigurationError

TAG = "django_taskkit"

SPEAKING = (
    ImportError,
    ImproperlyConfigured,
    CeleryImproperlyConfigured,
    ConfigurationError,
    AttributeError,
    TypeError,
)
"""Errors whose text names settings, modules and types; of others it may be a part of a URL, password and all."""

Messages = Iterable[checks.CheckMessage]
OfApp = Callable[[Celery], Messages]


def register(path: str, *tags: str, deploy: bool = False) -> None:
    """Register a check of Django, ``"module:function"`` of this package, under our tag.

    Its module is imported when it is first asked for: workers and web processes never do. What it raises becomes a
    message (taskkit.E010).
    """

    def check(app_configs: Any = None, databases: Any = None, **kwargs: Any) -> list[checks.CheckMessage]:
        return told(_loaded, path, databases)

    check.__name__ = path.partition(":")[2]
    checks.register(check, TAG, *tags, deploy=deploy)


def _loaded(path: str, databases: Any) -> Messages:
    function: Any = import_string(f"{__package__}.{path.replace(':', '.')}")
    return cast("Messages", function(databases=databases))


def of_project(check: OfApp) -> Callable[..., Messages]:
    """Return ``check`` for the project's Celery app.

    It isn't made where there is none (taskkit.W005), and where its settings can't be read (taskkit.E010, once).
    """

    @functools.wraps(check)
    def checked(**kwargs: Any) -> Messages:
        if not has_app():
            return []  # and asking for one would make Celery's own the default
        app = app_or_default()
        try:
            app.conf.get("broker_url")
        except Exception:
            return []
        return check(app)

    return checked


def told(check: Callable[..., Messages], *args: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Return what ``check`` finds; taskkit.E010 instead if it can't make sense of the configuration."""
    try:
        return list(check(*args, **kwargs))
    except Exception as exc:
        if _is_explained(exc):
            return []
        # A value that nobody thought of must not end `manage.py check` in a traceback that names our code. Checks
        # that meet the same error say the same, and `all_of` shows it once.
        text = " ".join(str(exc).split())[:500] if isinstance(exc, SPEAKING) else "its text may have a password in it"
        return [
            error(
                "E010",
                f"Celery's configuration can't be made sense of: {type(exc).__name__}: {text}",
                "Correct the setting that it is about; `celery -A your_project report` meets it as well.",
            )
        ]


def _is_explained(exc: Exception) -> bool:
    """Say whether taskkit.E001, E013 or E014 names the value that is to blame."""
    from django_taskkit.checks import values

    if isinstance(exc, ConfigurationError) and conf.problems(getattr(settings, "TASKKIT", {})):
        return True
    try:
        return has_app() and any(values.kinds(app_or_default()))
    except Exception:  # that is what it is about
        return False


def all_of(functions: Iterable[OfApp], app: Celery) -> list[checks.CheckMessage]:
    """Return what each of ``functions`` says of ``app``, each message once; one that fails keeps no other from it."""
    found: list[checks.CheckMessage] = []
    for function in functions:
        found += [message for message in told(function, app) if message not in found]
    return found


def error(number: str, text: str, hint: str, obj: Any = None) -> checks.CheckMessage:
    return checks.Error(text, hint=hint, obj=obj, id=f"taskkit.{number}")


def warning(number: str, text: str, hint: str, obj: Any = None) -> checks.CheckMessage:
    return checks.Warning(text, hint=hint, obj=obj, id=f"taskkit.{number}")
