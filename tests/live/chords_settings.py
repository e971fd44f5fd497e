"""Django settings of the workers in test_chords.py: those of the others, with django-celery-results."""

from letters_settings import *  # noqa: F403
from letters_settings import INSTALLED_APPS

INSTALLED_APPS = [*INSTALLED_APPS, "django_celery_results"]
