"""The Celery app. Its settings are Django's that start with CELERY_."""

from celery import Celery
from django_taskkit.observability.logs import keep_django_logging

from config.environment import choose_settings

choose_settings()

app = Celery("{{ cookiecutter.project }}")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# Workers and beat log as LOGGING says. Without: Celery puts handlers of its own in their place.
keep_django_logging()
{%- if cookiecutter.observability == "opentelemetry" %}


@app.on_after_finalize.connect
def connect_telemetry(**kwargs: object) -> None:
    from config import telemetry  # noqa: F401  # connects itself; settings are not there before
{%- endif %}
