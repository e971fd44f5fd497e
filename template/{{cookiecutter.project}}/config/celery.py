"""The Celery app. Its settings are Django's that start with CELERY_."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("{{ cookiecutter.project }}")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
