"""A project that runs Django's tasks on Celery."""

from letters_settings import *  # noqa: F403

TASKS = {
    "default": {"BACKEND": "django_taskkit.backends.CeleryBackend", "QUEUES": [], "OPTIONS": {"on_commit": True}},
}
