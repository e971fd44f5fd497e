"""The Django app: installing it is all the set-up there is."""

from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class TaskkitConfig(AppConfig):
    name = "django_taskkit"
    label = "django_taskkit"
    verbose_name = _("Tasks")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Put the recorder in front of Celery's failure handling, and register the checks."""
        from django_taskkit import checks  # noqa: F401
        from django_taskkit.backends import hooks as backends
        from django_taskkit.beat import hooks as beat
        from django_taskkit.dlq import tasks  # noqa: F401  (its task is there without autodiscovery)
        from django_taskkit.observability.health import hooks as health
        from django_taskkit.outbox import hooks as outbox
        from django_taskkit.worker import hooks, startup

        hooks.install()
        outbox.install()
        startup.install()
        beat.install()
        health.install()
        backends.install()
        _count_if_asked()


def _count_if_asked() -> None:
    """Load the metrics if the project has chosen a library for them; the checks say what is wrong with the settings."""
    from django_taskkit import conf
    from django_taskkit.exceptions import ConfigurationError

    try:
        chosen = conf.current().metrics
    except ConfigurationError:
        return
    if chosen:
        from django_taskkit.observability import metrics

        metrics.install()
