"""What ``manage.py check --deploy`` says about settings and tasks, so that one command says it all."""

from __future__ import annotations

from collections.abc import Iterator

from django.core import checks

from django_taskkit.doctor.finding import Finding, error, ok, warning
from django_taskkit.doctor.site import Site

SETTINGS = "settings"
TAG = "django_taskkit"


def settings(site: Site) -> Iterator[Finding]:
    """``settings``: the static checks of this app, each with the id that silences it (``SILENCED_SYSTEM_CHECKS``)."""
    found = [
        message
        for message in checks.run_checks(tags=[TAG], include_deployment_checks=True)
        if message.level >= checks.WARNING and not message.is_silenced()
    ]
    for message in found:
        judged = error if message.level >= checks.ERROR else warning
        about = "" if message.obj is None else f"{message.obj}: "
        yield judged(message.id or SETTINGS, f"{about}{message.msg}", message.hint or "")
    if not found:
        yield ok(SETTINGS, "`manage.py check --deploy` has nothing to say about django_taskkit and Celery.")
