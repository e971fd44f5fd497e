"""What ``manage.py check --deploy`` says about settings and tasks, so that one command says it all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.core import checks

from django_taskkit.doctor.finding import Finding, error, ok, warning
from django_taskkit.doctor.site import Site

SETTINGS = "settings"
TAG = "django_taskkit"
SHOWN = 5


def settings(site: Site) -> Iterator[Finding]:
    """``settings``: the static checks of this app, each with the id that silences it (``SILENCED_SYSTEM_CHECKS``)."""
    found = [
        message
        for message in checks.run_checks(tags=[TAG], include_deployment_checks=True)
        if message.level >= checks.WARNING and not message.is_silenced()
    ]
    alike: defaultdict[tuple[str, bool, str], list[str]] = defaultdict(list)
    for message in found:
        about = "" if message.obj is None else f"{message.obj}: "
        what = (message.id or SETTINGS, message.level >= checks.ERROR, message.hint or "")
        alike[what].append(f"{about}{message.msg}")
    for (id, is_error, hint), texts in alike.items():
        rest = f" And {len(texts) - SHOWN} more of the kind." if len(texts) > SHOWN else ""
        yield (error if is_error else warning)(id, " ".join(texts[:SHOWN]) + rest, hint)
    if not found:
        yield ok(SETTINGS, "`manage.py check --deploy` has nothing to say about django_taskkit and Celery.")
